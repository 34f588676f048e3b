// Package facetest is a terminal for tests: it shows what a program has drawn.
package facetest

import (
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

// Emulator is a terminal that knows what package face uses, and nothing more: it notes
// everything else in Unknown. It is safe for concurrent use.
type Emulator struct {
	mu            sync.Mutex
	columns, rows int
	screen        [][]rune // One rune for each column; 0 behind a wide one.
	history       []string // Rows that have left the screen at its top.
	row, column   int
	wrap, cursor  bool
	pending       []byte
	unknown       []string
	colored       bool
}

// NewEmulator returns an empty terminal.
func NewEmulator(columns, rows int) *Emulator {
	e := &Emulator{columns: columns, rows: rows, wrap: true, cursor: true}
	for range rows {
		e.screen = append(e.screen, e.empty())
	}
	return e
}

func (e *Emulator) empty() []rune { return []rune(strings.Repeat(" ", e.columns)) }

// Write shows output of a program.
func (e *Emulator) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending = append(e.pending, p...)
	for len(e.pending) > 0 {
		n := e.next(string(e.pending))
		if n == 0 {
			break // The rest of a sequence follows.
		}
		e.pending = e.pending[n:]
	}
	return len(p), nil
}

// next acts on the first character or sequence of s, and returns its length; 0: it is not
// complete.
func (e *Emulator) next(s string) int {
	if s[0] == '\x1b' {
		end := strings.IndexFunc(s, func(r rune) bool { return r >= '@' && r <= '~' && r != '[' })
		if end < 0 {
			return 0
		}
		e.sequence(s[:end+1])
		return end + 1
	}
	if !utf8.FullRuneInString(s) {
		return 0
	}
	r, n := utf8.DecodeRuneInString(s)
	switch r {
	case '\r':
		e.column = 0
	case '\n':
		e.down()
	default:
		e.put(r)
	}
	return n
}

func (e *Emulator) down() {
	if e.row++; e.row < e.rows {
		return
	}
	e.row--
	e.history = append(e.history, text(e.screen[0]))
	e.screen = append(e.screen[1:], e.empty())
}

func (e *Emulator) put(r rune) {
	width := terminal.Width(string(r))
	if width == 0 {
		return
	}
	if e.column+width > e.columns {
		if !e.wrap {
			e.unknown = append(e.unknown, "beyond the last column: "+string(r))
			return
		}
		e.column = 0
		e.down()
	}
	e.screen[e.row][e.column] = r
	if width == 2 {
		e.screen[e.row][e.column+1] = 0
	}
	e.column += width
}

func (e *Emulator) sequence(s string) {
	switch {
	case strings.HasSuffix(s, "m"):
		e.colored = true
	case s == "\x1b[?2026h", s == "\x1b[?2026l":
	case s == "\x1b[?25h", s == "\x1b[?25l":
		e.cursor = s[5] == 'h'
	case s == "\x1b[?7h", s == "\x1b[?7l":
		e.wrap = s[4] == 'h'
	case s == "\x1b[K", s == "\x1b[J":
		for i := e.column; i < e.columns; i++ {
			e.screen[e.row][i] = ' '
		}
		for row := e.row + 1; s == "\x1b[J" && row < e.rows; row++ {
			e.screen[row] = e.empty()
		}
	default:
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(s, "\x1b["), "A"))
		if err != nil || !strings.HasSuffix(s, "A") {
			e.unknown = append(e.unknown, strconv.Quote(s))
			return
		}
		e.row = max(0, e.row-n)
	}
}

// Resize makes the terminal as xterm does: what no longer fits at the right is lost, and
// rows leave at the top.
func (e *Emulator) Resize(columns, rows int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, row := range e.screen {
		e.screen[i] = append(row, []rune(strings.Repeat(" ", max(0, columns-len(row))))...)[:columns]
	}
	e.columns = columns
	for ; len(e.screen) > rows; e.row-- {
		e.history = append(e.history, text(e.screen[0]))
		e.screen = e.screen[1:]
	}
	for len(e.screen) < rows {
		e.screen = append(e.screen, e.empty())
	}
	e.rows, e.row, e.column = rows, max(e.row, 0), min(e.column, columns-1)
}

// Text returns the rows on the screen, without the empty ones at its end.
func (e *Emulator) Text() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var rows []string
	for _, row := range e.screen {
		rows = append(rows, text(row))
	}
	return strings.TrimRight(strings.Join(rows, "\n"), "\n")
}

// Colored reports whether anything was shown in a colour.
func (e *Emulator) Colored() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.colored
}

// History returns the rows that have left the screen at its top.
func (e *Emulator) History() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.history, "\n")
}

// State returns where the cursor is, from 0, whether it is visible, and what the terminal
// did not know or had no column for.
func (e *Emulator) State() (row, column int, visible bool, unknown []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.row, e.column, e.cursor && e.wrap, e.unknown
}

func text(row []rune) string {
	return strings.TrimRight(strings.ReplaceAll(string(row), "\x00", ""), " ")
}
