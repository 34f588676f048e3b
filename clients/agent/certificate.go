package agent

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	relaysession "github.com/eclitunnel/eclitunnel/relay/session"
)

// certificateInterval is how often the operator's certificate is looked at. It is
// renewed weeks before it expires.
const certificateInterval = 10 * time.Second

// CertificateFiles are the PEM files of a certificate chain and its private key.
// They are read again as they change.
type CertificateFiles struct {
	Certificate, Key string
}

// certificatePEM is what the files hold.
type certificatePEM struct {
	certificate, key string
}

func (f CertificateFiles) read() (certificatePEM, error) {
	certificate, err := os.ReadFile(f.Certificate)
	if err != nil {
		return certificatePEM{}, fmt.Errorf("read the certificate: %w", err)
	}
	key, err := os.ReadFile(f.Key)
	if err != nil {
		return certificatePEM{}, fmt.Errorf("read the certificate's key: %w", err)
	}
	return certificatePEM{string(certificate), string(key)}, nil
}

func (p certificatePEM) parse() (tls.Certificate, error) {
	certificate, err := tls.X509KeyPair([]byte(p.certificate), []byte(p.key))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the certificate and its key: %w", err)
	}
	return certificate, nil
}

// keptCertificate reads a self-made key and its certificate from a file, and makes
// them where there is none. What is damaged is an error and not made anew: agents
// know the key, and may not hear of another while the panel is away.
func keptCertificate(path string) (tls.Certificate, error) {
	data, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = makeCertificate(); err == nil {
			err = writePrivate(path, data)
		}
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the tunnel server's key: %w", err)
	}
	certificate, err := certificatePEM{string(data), string(data)}.parse()
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s is damaged; restore it, or remove it to have a new key: %w", path, err)
	}
	return certificate, nil
}

func makeCertificate() ([]byte, error) {
	made, err := relaysession.SelfSigned()
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Certificate[0]}),
	}, nil), nil
}
