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

// readKeys reads the key that signs, in PKCS#8 as `openssl genpkey -algorithm ed25519` makes
// it, or its public half alone (RFC 8410). Either file may be empty, and not both named.
func (r *release) readKeys(private, public string) error {
	if private != "" && public != "" {
		return errors.New("RELEASE_KEY has the public key in it: leave out RELEASE_PUBLIC_KEY")
	}
	if private != "" {
		key, err := readKey[ed25519.PrivateKey](private, "PRIVATE KEY", x509.ParsePKCS8PrivateKey)
		if err != nil {
			return fmt.Errorf("%w; openssl genpkey -algorithm ed25519 makes one", err)
		}
		r.key, r.public = key, base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	}
	if public != "" {
		key, err := readKey[ed25519.PublicKey](public, "PUBLIC KEY", x509.ParsePKIXPublicKey)
		if err != nil {
			return err
		}
		r.public = base64.StdEncoding.EncodeToString(key)
	}
	return nil
}

// readKey reads a key of a kind from a file in PEM.
func readKey[K any](file, kind string, parse func([]byte) (any, error)) (key K, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return key, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return key, fmt.Errorf("%s holds no %s in PEM that is not encrypted", file, strings.ToLower(kind))
	}
	parsed, err := parse(block.Bytes)
	if err != nil {
		return key, fmt.Errorf("read the key in %s: %w", file, err)
	}
	key, ok := parsed.(K)
	if !ok {
		return key, fmt.Errorf("%s holds a key of another kind than Ed25519", file)
	}
	return key, nil
}
