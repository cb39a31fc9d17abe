package settings

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the documentation shows is free of faults, and the first of it is as
// short as it says.
func TestDocumentedSettings(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/front.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)( *)```yaml\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	if len(blocks) != 3 {
		t.Fatalf("%d blocks, want 3", len(blocks))
	}
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"client-secret": "s", "ca.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, b := range blocks {
		text := strings.ReplaceAll("\n"+b[2], "\n"+b[1], "\n")
		if !strings.Contains(text, "issuer:") {
			text = "issuer: https://login.example.com\nclient_id: x\nclient_secret: y\n" + text
		}
		if lines := strings.Count(strings.TrimSpace(text), "\n") + 1; i == 0 && lines != 6 {
			t.Errorf("the first file has %d lines, want six", lines)
		}
		file := filepath.Join(dir, "front.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Load(Source{Args: []string{"-config", file}}); err != nil {
			t.Errorf("block %d:\n%v\n%s", i, err, text)
		}
	}
	for _, s := range Table() {
		if strings.Contains(string(doc), "`"+s.Name+"`") || s.demo == "" {
			continue
		}
		if !strings.Contains(string(doc), s.demo) {
			t.Errorf("nothing about %s", s.demo)
		}
	}
}
