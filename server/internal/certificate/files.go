package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

// FilesOptions configures Files.
type FilesOptions struct {
	// Certificate and Key are PEM files: a chain, and its private key. Required.
	Certificate, Key string
	Logger           *slog.Logger // nil is slog.Default.
	// Every is how often the files are read; 0 is 5 seconds.
	Every time.Duration
}

// Files serves the certificate in an operator's files, and reads it again when they change.
// It is safe for concurrent use.
type Files struct {
	opts FilesOptions

	mu      sync.Mutex
	content content
	served  *tls.Certificate
	failure string
}

// content is that of the two files.
type content struct{ chain, key []byte }

func (c content) equal(other content) bool {
	return bytes.Equal(c.chain, other.chain) && bytes.Equal(c.key, other.key)
}

// NewFiles reads the files, and returns a Files for Run.
func NewFiles(opts FilesOptions) (*Files, error) {
	if opts.Certificate == "" || opts.Key == "" {
		return nil, errors.New("certificate: Certificate and Key are required")
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Every == 0 {
		opts.Every = every
	}
	f := &Files{opts: opts}
	_, err := f.read()
	return f, err
}

// Run reads the files again when they change, until ctx ends, and then returns nil. It
// serves what it has while they are of no use.
func (f *Files) Run(ctx context.Context) error {
	ticker := time.NewTicker(f.opts.Every)
	defer ticker.Stop()
	log := f.opts.Logger.With(slog.String("file", f.opts.Certificate))
	for last := ""; ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if f.isPipe() {
			continue
		}
		changed, err := f.read()
		status := f.Status()[0]
		switch {
		case err != nil && status.Failure != last:
			log.WarnContext(ctx, "certificate not read again; the one before is served until it ends",
				slog.Any("error", err), slog.Time("notAfter", status.NotAfter))
		case changed:
			log.InfoContext(ctx, "certificate read again", slog.Time("notAfter", status.NotAfter))
		}
		last = status.Failure
	}
}

// isPipe reports whether what was read was all that there will be: a pipe of a shell or of
// a service manager. To open it again could block.
func (f *Files) isPipe() bool {
	for _, path := range []string{f.opts.Certificate, f.opts.Key} {
		if info, err := os.Stat(path); err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice) != 0 {
			return true
		}
	}
	return false
}

// read reads the files. Between the replacement of one and of the other they do not match.
func (f *Files) read() (changed bool, err error) {
	now, err := f.load()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && (f.served == nil || !now.equal(f.content)) {
		var certificate tls.Certificate
		if certificate, err = tls.X509KeyPair(now.chain, now.key); err == nil {
			f.content, f.served, changed = now, &certificate, true
		} else {
			err = fmt.Errorf("%s with the key %s: %w", f.opts.Certificate, f.opts.Key, err)
		}
	}
	f.failure = ""
	if err != nil {
		f.failure = err.Error()
	}
	return changed, err
}

func (f *Files) load() (content, error) {
	chain, err := files.Read(f.opts.Certificate)
	if err != nil {
		return content{}, err
	}
	key, err := files.ReadSecret(f.opts.Key)
	if err != nil {
		return content{}, err
	}
	return content{chain, key}, nil
}

// Get is tls.Config.GetCertificate.
func (f *Files) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.served, nil
}

// Status returns what is known of the certificate: one element.
func (f *Files) Status() []Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []Status{{Name: f.opts.Certificate, NotAfter: f.served.Leaf.NotAfter, Failure: f.failure}}
}
