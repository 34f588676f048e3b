//go:build unix

package certificate_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/server/internal/certificate"
)

func TestFiles_ReadsAPipeOnce(t *testing.T) {
	dir := t.TempDir()
	chain, key := issue(t, 1)
	options := certificate.FilesOptions{
		Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Every: time.Millisecond,
	}
	write(t, options.Certificate, chain)
	if err := syscall.Mkfifo(options.Key, 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(options.Key, key, 0) }()
	f, err := certificate.NewFiles(options)
	if err := errors.Join(err, <-written); err != nil {
		t.Fatal(err)
	}
	// To read it again would block.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.Run(ctx); err != nil || f.Status()[0].Failure != "" {
		t.Errorf("%v, %+v", err, f.Status())
	}
}
