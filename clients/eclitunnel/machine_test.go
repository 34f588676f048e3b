package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
)

// machine is a machine with a config directory, on which commands run.
type machine struct {
	t     *testing.T
	env   map[string]string
	stdin string
	waits []time.Duration
}

type outcome struct {
	code           int
	stdout, stderr string
}

func newMachine(t *testing.T) *machine {
	return &machine{t: t, env: map[string]string{"ECLITUNNEL_CONFIG": filepath.Join(t.TempDir(), "config.json")}}
}

// enrolledAt returns a machine that is enrolled with p.
func enrolledAt(t *testing.T, p *panel, allow ...string) *machine {
	t.Helper()
	m := newMachine(t)
	c := agent.Config{PanelURL: p.URL, DeviceID: p.device, Name: "home", Token: p.token, Allow: allow}
	if err := c.Save(m.env["ECLITUNNEL_CONFIG"]); err != nil {
		t.Fatal(err)
	}
	return m
}

// buffer is safe for concurrent writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (m *machine) run(args ...string) outcome {
	m.t.Helper()
	var stdout, stderr buffer
	a := &app{
		env:    func(name string) (string, bool) { v, ok := m.env[name]; return v, ok },
		stdin:  strings.NewReader(m.stdin),
		stdout: &stdout, stderr: &stderr,
		wait: func(ctx context.Context, d time.Duration) error {
			m.waits = append(m.waits, d)
			return ctx.Err()
		},
	}
	o := outcome{code: a.run(m.t.Context(), args)}
	o.stdout, o.stderr = stdout.b.String(), stderr.b.String()
	for _, secret := range []string{sampleCode, "c2ln"} {
		if strings.Contains(o.stdout+o.stderr, secret) {
			m.t.Errorf("%v printed a secret:\n%s%s", args, o.stdout, o.stderr)
		}
	}
	return o
}

func (m *machine) config() agent.Config {
	m.t.Helper()
	c, err := agent.LoadConfig(m.env["ECLITUNNEL_CONFIG"])
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

func (o outcome) want(t *testing.T, code int, words ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", o.code, code, o.stdout, o.stderr)
	}
	for _, w := range words {
		if !strings.Contains(o.stdout+o.stderr, w) {
			t.Errorf("%q is missing from the output\nstdout: %s\nstderr: %s", w, o.stdout, o.stderr)
		}
	}
}

// keys returns the field names of a JSON object, sorted.
func keys(t *testing.T, line string) []string {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(line), &object); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func wantKeys(t *testing.T, line string, want ...string) {
	t.Helper()
	if got := keys(t, line); !slices.Equal(got, want) {
		t.Errorf("fields %v, want %v", got, want)
	}
}
