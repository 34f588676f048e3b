//go:build unix

package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// startRun starts the agent as a program of its own, by a command that gets it as its
// last arguments, and waits until it is connected.
func startRun(t *testing.T, p *panel, by ...string) (*exec.Cmd, *notify) {
	t.Helper()
	m := enrolledAt(t, p)
	args := append(append([]string{}, by...), os.Args[0], "run")
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "ECLITUNNEL_CONFIG="+m.env["ECLITUNNEL_CONFIG"])
	out := &notify{words: "connected to", seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	// A program inherits that a signal is ignored, as where nohup runs the tests, but not
	// that it is handled.
	handled := make(chan os.Signal, 1)
	signal.Notify(handled, syscall.SIGHUP)
	defer signal.Stop(handled)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-out.seen:
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("it says %s", out.String())
	}
	return cmd, out
}

func TestRun_SaysThatASignalStopsIt(t *testing.T) {
	for _, signals := range [][]os.Signal{
		{syscall.SIGINT}, {syscall.SIGTERM}, {syscall.SIGHUP}, {syscall.SIGHUP, syscall.SIGHUP, syscall.SIGHUP},
	} {
		cmd, out := startRun(t, newPanel(t))
		for _, signal := range signals {
			_ = cmd.Process.Signal(signal) // It may have ended at the one before.
		}
		if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "stopped") {
			t.Errorf("%v: %v: %s", signals, err, out.String())
		}
	}
}

func TestRun_UnderNohupOutlivesItsTerminal(t *testing.T) {
	p := newPanel(t)
	p.closeCode = channel.CloseRestarting // It connects again and again.
	cmd, out := startRun(t, p, "sh", "-c", `trap "" HUP; exec "$@"`, "nohup")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	enough := p.hellos + 3
	p.mu.Unlock()
	await.Within(t, 20*time.Second, "further connections", func(context.Context) (bool, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.hellos >= enough, nil
	})
	_ = cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestRun_SaysThatTheConnectionIsLost(t *testing.T) {
	for name, cut := range map[string]func(*net.TCPConn){
		"reset":              func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
		"closed":             func(c *net.TCPConn) { _ = c.Close() },
		"closed for writing": func(c *net.TCPConn) { _ = c.CloseWrite() },
	} {
		p := newPanel(t)
		p.cut = cut
		m := enrolledAt(t, p)
		ctx, cancel := context.WithCancel(t.Context())
		out := &notify{words: "connection lost, reconnecting", seen: make(chan struct{})}
		code := make(chan int, 1)
		go func() {
			env := func(name string) (string, bool) { v, ok := m.env[name]; return v, ok }
			code <- run(ctx, []string{"run"}, env, strings.NewReader(""), out, out)
		}()
		select {
		case <-out.seen:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: it says %s", name, out.String())
		}
		cancel()
		if got := <-code; got != 0 {
			t.Errorf("%s: exit code %d", name, got)
		}
	}
}
