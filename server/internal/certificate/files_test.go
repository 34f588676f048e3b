package certificate_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server/internal/certificate"
)

// issue returns a certificate with its key, as PEM.
func issue(t *testing.T, serial int64) (chain, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{domain}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// operator has the files of a certificate.
type operator struct {
	*certificate.Files
	certificate, key string
	log              testlog.Buffer
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	dir := t.TempDir()
	o := &operator{certificate: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	o.replace(t, 1)
	var err error
	o.Files, err = certificate.NewFiles(certificate.FilesOptions{
		Certificate: o.certificate, Key: o.key, Every: 5 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&o.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return o
}

// replace replaces both files.
func (o *operator) replace(t *testing.T, serial int64) {
	t.Helper()
	chain, key := issue(t, serial)
	write(t, o.certificate, chain)
	write(t, o.key, key)
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// serial returns that of the certificate that is served.
func (o *operator) serial(t *testing.T) int64 {
	t.Helper()
	served, err := o.Get(nil)
	if err != nil {
		t.Fatal(err)
	}
	return served.Leaf.SerialNumber.Int64()
}

func TestFiles_AreReadAgainWhenTheyChange(t *testing.T) {
	o := newOperator(t)
	for serial := int64(2); serial < 4; serial++ {
		o.replace(t, serial)
		await.Until(t, "the new certificate", func() bool { return o.serial(t) == serial })
	}
	await.Until(t, "a line for each", func() bool { return strings.Count(o.log.String(), "certificate read again") == 2 })
}

// TestFiles_AreReadAgainWhenTheirNamesLeadElsewhere: the files that were read do not change.
func TestFiles_AreReadAgainWhenTheirNamesLeadElsewhere(t *testing.T) {
	o := newOperator(t)
	dir := filepath.Dir(o.certificate)
	// version makes a directory with a certificate.
	version := func(serial int64) string {
		t.Helper()
		path, err := os.MkdirTemp(dir, "version")
		if err != nil {
			t.Fatal(err)
		}
		chain, key := issue(t, serial)
		write(t, filepath.Join(path, "cert.pem"), chain)
		write(t, filepath.Join(path, "key.pem"), key)
		return path
	}
	// link has a name lead elsewhere at once.
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, name+".new"); err != nil {
			t.Skip(err) // Windows asks for a privilege.
		}
		rename(t, name+".new", name)
	}
	served := func(how string, serial int64) {
		t.Helper()
		await.Until(t, how, func() bool { return o.serial(t) == serial && o.Status()[0].Failure == "" })
	}

	renamed := version(2)
	rename(t, filepath.Join(renamed, "cert.pem"), o.certificate)
	rename(t, filepath.Join(renamed, "key.pem"), o.key)
	served("renamed files", 2)

	certbot := version(3) // It links each file.
	link(filepath.Join(certbot, "cert.pem"), o.certificate)
	link(filepath.Join(certbot, "key.pem"), o.key)
	served("linked files", 3)

	kubernetes := filepath.Join(dir, "..data") // It links the directory that both are in.
	link(version(4), kubernetes)
	link(filepath.Join(kubernetes, "cert.pem"), o.certificate)
	link(filepath.Join(kubernetes, "key.pem"), o.key)
	served("files in a linked directory", 4)
	link(version(5), kubernetes)
	served("files in another linked directory", 5)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestFiles_ServesTheOneBeforeWhileTheyAreOfNoUse(t *testing.T) {
	const said = "certificate not read again"
	another, other := issue(t, 9)
	for name, spoil := range map[string]func(t *testing.T, o *operator){
		"no certificate":           func(t *testing.T, o *operator) { write(t, o.certificate, []byte("none")) },
		"half a certificate":       func(t *testing.T, o *operator) { halve(t, o.certificate) },
		"half a key":               func(t *testing.T, o *operator) { halve(t, o.key) },
		"another's certificate":    func(t *testing.T, o *operator) { write(t, o.certificate, another) },
		"an empty file":            func(t *testing.T, o *operator) { write(t, o.certificate, nil) },
		"another's key":            func(t *testing.T, o *operator) { write(t, o.key, other) },
		"no file":                  func(t *testing.T, o *operator) { remove(t, o.certificate) },
		"no key":                   func(t *testing.T, o *operator) { remove(t, o.key) },
		"a key that others read":   func(t *testing.T, o *operator) { expose(t, o.key) },
		"a directory in its place": func(t *testing.T, o *operator) { remove(t, o.key); directory(t, o.key) },
	} {
		t.Run(name, func(t *testing.T) {
			o := newOperator(t)
			before := o.Status()[0]
			spoil(t, o)
			await.Until(t, "a failure", func() bool { return o.Status()[0].Failure != "" })
			status := o.Status()[0]
			if o.serial(t) != 1 || !status.NotAfter.Equal(before.NotAfter) || status.Name != o.certificate {
				t.Errorf("%+v", status)
			}
			await.Until(t, "a line in the log", func() bool { return strings.Contains(o.log.String(), said) })
			_ = os.RemoveAll(o.key)
			o.replace(t, 2)
			await.Until(t, "the new certificate", func() bool { return o.serial(t) == 2 && o.Status()[0].Failure == "" })
			await.Until(t, "a line about it", func() bool { return strings.Contains(o.log.String(), "certificate read again") })
			// What is between the two files' replacements may be seen, and said, as well.
			log, _, _ := strings.Cut(o.log.String(), "certificate read again")
			if lines := strings.Count(log, status.Failure); lines > 1 {
				t.Errorf("%d lines say: %s", lines, status.Failure)
			}
		})
	}
}

// halve leaves the first half of a file, as somebody does who is still writing it.
func halve(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()/2)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func expose(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
}

func directory(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestNewFiles_SaysWhichFileIsWrong(t *testing.T) {
	dir := t.TempDir()
	chain, key := issue(t, 1)
	_, other := issue(t, 2)
	for name, content := range map[string][]byte{"cert.pem": chain, "key.pem": key, "other.pem": other, "text.pem": []byte("text")} {
		write(t, filepath.Join(dir, name), content)
	}
	for _, test := range []struct{ certificate, key, said string }{
		{"cert.pem", "key.pem", ""},
		{"none.pem", "key.pem", "none.pem"},
		{"cert.pem", "none.pem", "none.pem"},
		{"text.pem", "key.pem", "text.pem"},
		{"cert.pem", "other.pem", "other.pem"},
		{"key.pem", "cert.pem", "key.pem"},
	} {
		_, err := certificate.NewFiles(certificate.FilesOptions{Certificate: filepath.Join(dir, test.certificate), Key: filepath.Join(dir, test.key)})
		if test.said == "" && err != nil || test.said != "" && (err == nil || !strings.Contains(err.Error(), test.said)) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
