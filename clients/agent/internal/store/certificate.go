package store

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

// Certificate reads a self-signed certificate and its key from a PEM file, which it
// creates where it is missing. A damaged file is an error and not replaced: agents
// know the key, and may not learn of another while the panel is away.
func Certificate(path string, create func() (tls.Certificate, error)) (tls.Certificate, error) {
	data, err := files.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = createPEM(create); err == nil {
			err = files.Write(path, data)
		}
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the tunnel server's key: %w", err)
	}
	certificate, err := tls.X509KeyPair(data, data)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s is damaged; restore it, or remove it to have a new key: %w", path, err)
	}
	return certificate, nil
}

func createPEM(create func() (tls.Certificate, error)) ([]byte, error) {
	certificate, err := create()
	if err != nil {
		return nil, err
	}
	return EncodePEM(certificate)
}

// EncodePEM returns the key and the first certificate of c in PEM.
func EncodePEM(c tls.Certificate) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
	}, nil), nil
}
