// Package prompt asks a person at a terminal for a secret.
package prompt

import (
	"context"
	"io"
	"os"

	"golang.org/x/term"
)

// Secret writes question to w and returns the line that is typed at the terminal, which
// does not echo it. Once ctx ends, it restores the terminal's echo and returns the
// context's error. Nothing can end the read of the terminal then: it lasts until the next
// line, or the end of the process.
func Secret(ctx context.Context, terminal *os.File, w io.Writer, question string) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	_, _ = io.WriteString(w, question)
	defer func() { _, _ = io.WriteString(w, "\n") }()
	type answer struct {
		line []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		answers <- answer{line, err}
	}()
	select {
	case a := <-answers:
		return string(a.line), a.err
	case <-ctx.Done():
		_ = term.Restore(fd, before) // The process ends; there is nothing else to try.
		return "", ctx.Err()
	}
}
