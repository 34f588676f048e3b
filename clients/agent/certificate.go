package agent

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

// certificateInterval is how often the operator's certificate is read again. It is
// renewed weeks before it expires, so any interval will do.
const certificateInterval = 10 * time.Second

// CertificateFiles are the PEM files of a certificate chain and its private key.
// They are read again when they change.
type CertificateFiles struct {
	Certificate, Key string
}

// certificatePEM is the content of CertificateFiles.
type certificatePEM struct {
	certificate, key string
}

func (f CertificateFiles) read() (certificatePEM, error) {
	certificate, err := files.Read(f.Certificate)
	if err != nil {
		return certificatePEM{}, fmt.Errorf("read the certificate: %w", err)
	}
	key, err := files.ReadSecret(f.Key)
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
