package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// sum writes the checksums of a directory's files, as sha256sum does, and their signature.
func (r *release) sum(dir string) error {
	files, err := os.ReadDir(dir) // Sorted by name.
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, file := range files {
		hash := sha256.New()
		if err := copyFile(filepath.Join(dir, file.Name()), func(int64) (io.Writer, error) { return hash, nil }); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(hash.Sum(nil)), file.Name())
	}
	text := []byte(sums.String())
	if err := os.WriteFile(filepath.Join(dir, "SHA256SUMS"), text, 0o644); err != nil || r.key == nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS.sig"), ed25519.Sign(r.key, text), 0o644)
}

// readKey reads an Ed25519 private key in PKCS#8 (RFC 8410), as `openssl genpkey -algorithm
// ed25519` makes it.
func readKey(file string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New(file + " holds no unencrypted private key in PEM; openssl genpkey -algorithm ed25519 makes one")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the key in %s: %w", file, err)
	}
	signing, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key of another kind than Ed25519", file)
	}
	return signing, nil
}

// publicKey returns the public half of a key in base64, as programs hold it.
func publicKey(key ed25519.PrivateKey) string {
	return base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}
