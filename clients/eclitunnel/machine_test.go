package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
)

// machine is a machine with a config directory, on which commands run.
type machine struct {
	t     *testing.T
	env   map[string]string
	stdin string
	waits []time.Duration
	fail  error // If set, what the next wait returns.

	program string // If set, what an update replaces.
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

func (m *machine) run(args ...string) outcome {
	m.t.Helper()
	var stdout, stderr testlog.Buffer
	a := &app{
		env:    func(name string) (string, bool) { v, ok := m.env[name]; return v, ok },
		stdin:  strings.NewReader(m.stdin),
		stdout: &stdout, stderr: &stderr, program: m.program,
		wait: func(ctx context.Context, d time.Duration) error {
			m.waits = append(m.waits, d)
			err := errors.Join(ctx.Err(), m.fail)
			m.fail = nil
			return err
		},
	}
	o := outcome{code: a.run(m.t.Context(), args)}
	o.stdout, o.stderr = stdout.String(), stderr.String()
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

// notify is a buffer that tells when something has been written to it.
type notify struct {
	testlog.Buffer
	words string
	once  sync.Once
	seen  chan struct{} // Closed when it has words.
}

func (n *notify) Write(p []byte) (int, error) {
	if strings.Contains(string(p), n.words) {
		n.once.Do(func() { close(n.seen) })
	}
	return n.Buffer.Write(p)
}

// background is a command that runs beside the test.
type background struct {
	stdout *notify
	stop   func() outcome // Ends it as a signal does. Both may be called again.
	end    func() outcome // Waits for its own end.
}

// background starts a command and returns once its standard output has words.
func (m *machine) background(words string, args ...string) *background {
	m.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	env := maps.Clone(m.env)
	var stderr testlog.Buffer
	b := &background{stdout: &notify{words: words, seen: make(chan struct{})}}
	a := &app{
		env:   func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		stdin: strings.NewReader(""), stdout: b.stdout, stderr: &stderr, program: m.program,
		wait: func(ctx context.Context, d time.Duration) error { return wait(ctx, min(d, 10*time.Millisecond)) },
	}
	done := make(chan int, 1)
	go func() { done <- a.run(ctx, args) }()
	b.end = sync.OnceValue(func() outcome {
		defer cancel()
		return outcome{code: <-done, stdout: b.stdout.String(), stderr: stderr.String()}
	})
	b.stop = func() outcome {
		cancel()
		return b.end()
	}
	m.t.Cleanup(func() { b.stop() })
	select {
	case <-b.stdout.seen:
	case <-time.After(20 * time.Second):
		o := b.stop()
		m.t.Fatalf("%v: exit code %d without %q\nstdout: %s\nstderr: %s", args, o.code, words, o.stdout, o.stderr)
	}
	return b
}
