package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/eclitunnel/internal/face/facetest"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/prompt/prompttest"
)

// window is a terminal in which a command runs.
type window struct {
	*facetest.Emulator
	t        *testing.T
	keyboard *os.File
	code     chan int
	stop     func()
}

// window runs a command in a terminal of that size.
func (m *machine) window(columns, rows int, env map[string]string, args ...string) *window {
	m.t.Helper()
	keyboard, screen := prompttest.Terminal(m.t)
	w := &window{Emulator: facetest.NewEmulator(columns, rows), t: m.t, keyboard: keyboard, code: make(chan int, 1)}
	w.size(columns, rows)
	variables := map[string]string{"TERM": "xterm-256color", "LANG": "C.UTF-8"}
	for _, more := range []map[string]string{m.env, env} {
		for name, value := range more {
			variables[name] = value
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	a := &app{
		env:   func(name string) (string, bool) { v, ok := variables[name]; return v, ok },
		stdin: strings.NewReader(""), stdout: screen, stderr: screen, wait: wait,
	}
	go func() { w.code <- a.run(ctx, args) }()
	go func() { // It ends with the test, which closes the terminal.
		b := make([]byte, 4096)
		for {
			n, err := keyboard.Read(b)
			if err != nil {
				return
			}
			_, _ = w.Write(b[:n])
		}
	}()
	m.t.Cleanup(cancel)
	return w
}

func (w *window) size(columns, rows int) {
	w.t.Helper()
	if err := unix.IoctlSetWinsize(int(w.keyboard.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(columns)}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *window) has(texts ...string) {
	w.t.Helper()
	await.Until(w.t, strings.Join(texts, ", ")+" in the terminal", func() bool {
		for _, text := range texts {
			if !strings.Contains(w.Text(), text) {
				return false
			}
		}
		return true
	})
}

// end ends the command as Ctrl-C does, and checks how it leaves the terminal.
func (w *window) end() {
	w.t.Helper()
	_, _ = w.Write([]byte("^C")) // As the terminal echoes it.
	w.stop()
	if code := await.Receive(w.t, w.code, "the end of the command"); code != 0 {
		w.t.Errorf("exit code %d", code)
	}
	await.Until(w.t, "a visible cursor below the picture", func() bool {
		row, column, visible, unknown := w.State()
		return visible && column == 0 && row > 0 && len(unknown) == 0 && !strings.Contains(w.Text(), "^C")
	})
}

func TestRun_DrawsInATerminalAndFollowsItsSize(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	w := m.window(80, 24, nil, "run")
	w.has("EcliTunnel  home", "● connected to "+strings.TrimPrefix(p.URL, "http://"), "No ports are open.", "connected to the panel")
	w.Resize(40, 20)
	w.size(40, 20)
	w.has("● connected · just now")
	w.end()
	w.has("○ stopped")
	if text := w.Text(); strings.Count(text, "EcliTunnel") != 1 {
		t.Errorf("more than the last picture is left:\n%s", text)
	}
}

func TestRun_PrintsLinesWhereAPictureIsNotWanted(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
	}{
		"--plain":       {args: []string{"--plain"}},
		"in a variable": {env: map[string]string{"ECLITUNNEL_PLAIN": "true"}},
		"TERM=dumb":     {env: map[string]string{"TERM": "dumb"}},
		"no TERM":       {env: map[string]string{"TERM": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPanel(t)
			w := enrolledAt(t, p).window(120, 24, c.env, append([]string{"run"}, c.args...)...)
			w.has("  connected to " + p.URL + " as home")
			if text := w.Text(); strings.Contains(text, "EcliTunnel") {
				t.Errorf("drawn:\n%s", text)
			}
			w.stop()
			if code := await.Receive(t, w.code, "the end of the command"); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestWatch_ShowsTheAgentOfTheMachine(t *testing.T) {
	p := newPanel(t)
	m, service := besideService(t, p)
	w := m.window(80, 24, map[string]string{"LANG": "C"}, "watch")
	w.has("EcliTunnel  home", "* connected to ", "No ports are open.")
	lines := m.background("home", "watch")
	snapshots := m.background("\"panel\"", "watch", "--json")
	service.stop()
	w.has("o the agent has ended; waiting for it")
	w.end()
	o := lines.stop()
	o.want(t, 0, " is connected to "+p.URL, "the agent has ended")
	first, _, _ := strings.Cut(snapshots.stop().stdout, "\n")
	wantKeys(t, first, "device", "notes", "panel", "servers", "started", "time", "tunnels", "version")
	var s agent.Snapshot
	if err := json.Unmarshal([]byte(first), &s); err != nil || !s.Panel.Connected || s.Device.ID != p.device {
		t.Errorf("snapshot %+v, %v", s, err)
	}
	m.run("watch").want(t, 1, "no agent runs on this machine")
}
