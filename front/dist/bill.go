package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// The parts of SPDX 2.3 that a bill of materials of a Go program needs.
type (
	bill struct {
		Version       string         `json:"spdxVersion"`
		License       string         `json:"dataLicense"`
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Namespace     string         `json:"documentNamespace"`
		Creation      creation       `json:"creationInfo"`
		Packages      []spdxPackage  `json:"packages"`
		Relationships []relationship `json:"relationships"`
	}
	creation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID        string     `json:"SPDXID"`
		Name      string     `json:"name"`
		Version   string     `json:"versionInfo"`
		Download  string     `json:"downloadLocation"`
		Analyzed  bool       `json:"filesAnalyzed"`
		License   string     `json:"licenseConcluded"`
		Declared  string     `json:"licenseDeclared"`
		Copyright string     `json:"copyrightText"`
		Comment   string     `json:"comment,omitempty"`
		Checksums []checksum `json:"checksums,omitempty"`
		Refs      []ref      `json:"externalRefs,omitempty"`
	}
	checksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	ref struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	relationship struct {
		From string `json:"spdxElementId"`
		Kind string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

const unknown = "NOASSERTION"

// writeBill lists the modules that are in a binary, as the binary itself says.
func writeBill(binary, name string, made time.Time) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(raw)
	digest := hex.EncodeToString(sum[:])
	b := bill{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name,
		Namespace: "https://github.com/seed454743b5/signin/spdx/" + name + "-" + digest,
		Creation:  creation{made.Format(time.RFC3339), []string{"Tool: signin-front-dist"}},
	}
	add := func(id, name, version, comment string) *spdxPackage {
		b.Packages = append(b.Packages, spdxPackage{
			ID: id, Name: name, Version: version, Download: unknown, License: unknown, Declared: unknown, Copyright: unknown, Comment: comment,
			Refs: []ref{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + name + "@" + version}},
		})
		return &b.Packages[len(b.Packages)-1]
	}
	add("SPDXRef-binary", info.Path, info.Main.Version, "").Checksums = []checksum{{"SHA256", digest}}
	b.Relationships = append(b.Relationships, relationship{"SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-binary"})
	add("SPDXRef-std", "std", info.GoVersion, "The Go standard library")
	b.Relationships = append(b.Relationships, relationship{"SPDXRef-binary", "CONTAINS", "SPDXRef-std"})
	for i, m := range info.Deps {
		comment := ""
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Sum != "" {
			comment = "go.sum: " + m.Sum
		}
		path := m.Path
		if info.Deps[i].Replace != nil {
			path = info.Deps[i].Path // a folder of this repository
		}
		id := fmt.Sprintf("SPDXRef-module-%d", i+1)
		add(id, path, m.Version, comment)
		b.Relationships = append(b.Relationships, relationship{"SPDXRef-binary", "CONTAINS", id})
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(binary+".spdx.json", append(text, '\n'), 0o644)
}
