package dbtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/postgres"
)

// Stalling is a Postgres of a test's own, whose processes can be stopped and continued. A stopped
// one accepts connections and statements, as far as the kernel does that, and answers nothing.
type Stalling struct {
	// URL is that of a database, migrated and empty.
	URL string

	t   testing.TB
	dir string
}

// NewStalling starts a Postgres that ends with the test, stopped or not.
func NewStalling(t testing.TB) *Stalling {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // Postgres does not run as root, and must get through.
	}
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("dbtest: %v", err)
		}
	})
	server, err := postgres.Start(ctx, postgres.Options{DataDir: dir, Settings: map[string]string{"fsync": "off", "autovacuum": "off"}})
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	s := &Stalling{URL: server.URL(), t: t, dir: dir}
	t.Cleanup(func() {
		s.Continue()
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			t.Errorf("dbtest: %v", err)
		}
	})
	if err := migrate(ctx, s.URL); err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	return s
}

// Stop has the server do nothing until Continue.
func (s *Stalling) Stop() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
}

// Continue lets the server go on.
func (s *Stalling) Continue() {
	s.t.Helper()
	s.signal(syscall.SIGCONT)
}

// signal reaches the first process and, since none is made any more once that is stopped, all others.
func (s *Stalling) signal(what syscall.Signal) {
	s.t.Helper()
	content, err := os.ReadFile(filepath.Join(s.dir, "cluster", "postmaster.pid"))
	if err != nil {
		s.t.Fatalf("dbtest: %v", err)
	}
	line, _, _ := bytes.Cut(content, []byte("\n"))
	first, err := strconv.Atoi(string(line))
	if err != nil {
		s.t.Fatalf("dbtest: %v", err)
	}
	if err := syscall.Kill(first, what); err != nil {
		s.t.Fatalf("dbtest: %v", err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", first, first))
	if err != nil {
		s.t.Fatalf("dbtest: %v", err)
	}
	for _, text := range strings.Fields(string(children)) {
		// One that has ended meanwhile needs no signal.
		if child, err := strconv.Atoi(text); err == nil {
			_ = syscall.Kill(child, what)
		}
	}
}
