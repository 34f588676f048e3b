package main

import (
	"context"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/eclitunnel/internal/face"
)

// refreshInterval is the time between two looks at the size of a terminal that does not
// say when it changes, and at the clock.
const refreshInterval = time.Second

// fallbackSize is that of a terminal that does not know its own.
var fallbackSize = face.Size{Columns: 80, Rows: 24}

// picture draws a running agent in the terminal that is standard output.
type picture struct {
	screen *face.Screen
	file   *os.File
	style  face.Style

	mu    sync.Mutex
	last  agent.Snapshot
	gone  string // What has become of an agent that does not run.
	drawn bool   // There is a snapshot.
}

// newPicture returns nil where lines are wanted: standard output is no terminal, or one
// that cannot move its cursor, or another program's at the moment.
func (a *app) newPicture(plain bool) *picture {
	file, ok := a.terminal()
	if plain || !ok || !foreground(file) {
		return nil
	}
	return &picture{
		screen: face.NewScreen(file), file: file,
		style: face.Style{Color: a.color(), Unicode: a.unicode()},
	}
}

// terminal returns standard output if a person looks at it in a terminal that knows
// control sequences.
func (a *app) terminal() (*os.File, bool) {
	file, ok := a.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || !sequences(file) {
		return nil, false
	}
	kind, _ := a.env("TERM")
	return file, kind != "dumb" && (kind != "" || runtime.GOOS == "windows")
}

// color reports whether standard output shows colours, and whoever looks wants them: see
// https://no-color.org.
func (a *app) color() bool {
	without, _ := a.env("NO_COLOR")
	_, ok := a.terminal()
	return ok && without == ""
}

// unicode reports whether the terminal shows more than ASCII.
func (a *app) unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value, _ := a.env(name); value != "" {
			value = strings.ToUpper(value)
			return strings.Contains(value, "UTF-8") || strings.Contains(value, "UTF8")
		}
	}
	return runtime.GOOS == "windows" || runtime.GOOS == "darwin"
}

// log returns where lines of the log go: above the picture if they would go through it.
func (p *picture) log(stderr io.Writer) io.Writer {
	if file, ok := stderr.(*os.File); p != nil && ok && term.IsTerminal(int(file.Fd())) {
		return p.screen
	}
	return stderr
}

// follow draws what watch shows, until that returns, and returns its error.
func (p *picture) follow(ctx context.Context, watch func(context.Context, func(agent.Snapshot) error) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var refreshing sync.WaitGroup
	defer func() { cancel(); refreshing.Wait(); _ = p.screen.Close() }()
	refreshing.Go(func() { p.refresh(ctx) })
	return watch(ctx, p.show)
}

// refresh draws again when the size of the terminal changes, until ctx ends.
func (p *picture) refresh(ctx context.Context) {
	resized, stop := resizes()
	defer stop()
	ticker := time.NewTicker(refreshInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-resized:
		case <-ticker.C:
		}
		p.mu.Lock()
		p.draw()
		p.mu.Unlock()
	}
}

// show draws a snapshot.
func (p *picture) show(s agent.Snapshot) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.gone, p.drawn = s, "", true
	p.draw()
	return nil
}

// without draws that the agent does not run.
func (p *picture) without(gone string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone, p.drawn = gone, true
	p.draw()
}

// draw is called with mu held. The agent goes on without its terminal, if that has gone.
func (p *picture) draw() {
	if !p.drawn {
		return
	}
	size := fallbackSize
	if columns, rows, err := term.GetSize(int(p.file.Fd())); err == nil && columns > 0 && rows > 0 {
		size = face.Size{Columns: columns, Rows: rows}
	}
	_ = p.screen.Draw(face.Render(p.last, p.gone, size, p.style, time.Now()), size)
}
