package settings

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"go.yaml.in/yaml/v3"
)

// ReadKey reads a PEM private key.
func ReadKey(name string) (crypto.Signer, error) {
	raw, err := readSmall(name, 64<<10)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
		}
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("holds no PEM private key that is not encrypted")
}

// ReadSecret reads the client secret's file.
func ReadSecret(name string) (string, error) { return secretFile(name) }

func (l *loader) certificates(n *yaml.Node) []byte {
	name := l.beside(l.text(n))
	raw, err := readSmall(name, 1<<20)
	switch {
	case err != nil:
		l.fault(n, "%s: %s", name, cause(err))
	case !x509.NewCertPool().AppendCertsFromPEM(raw):
		l.fault(n, "%s: holds no PEM certificate", name)
	}
	return raw
}
