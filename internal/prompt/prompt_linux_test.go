package prompt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/prompt"
	"github.com/eclitunnel/eclitunnel/internal/prompt/prompttest"
)

func echoes(t *testing.T, screen *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

type result struct {
	line string
	err  error
}

// ask asks at a terminal and returns once that echoes nothing.
func ask(ctx context.Context, t *testing.T, screen *os.File) <-chan result {
	t.Helper()
	results := make(chan result, 1)
	go func() {
		var out bytes.Buffer
		line, err := prompt.Secret(ctx, screen, &out, "Password: ")
		if out.String() != "Password: \n" {
			err = errors.Join(err, fmt.Errorf("printed %q", &out))
		}
		results <- result{line, err}
	}()
	await.Within(t, 10*time.Second, "a terminal without echo", func(context.Context) (bool, error) {
		return !echoes(t, screen), nil
	})
	return results
}

func TestSecret_ReturnsTheLine(t *testing.T) {
	keyboard, screen := prompttest.Terminal(t)
	results := ask(t.Context(), t, screen)
	if _, err := keyboard.WriteString("a secret\n"); err != nil {
		t.Fatal(err)
	}
	if r := await.Receive(t, results, "the line"); r.line != "a secret" || r.err != nil || !echoes(t, screen) {
		t.Errorf("%q, %v, echo %v", r.line, r.err, echoes(t, screen))
	}
}

func TestSecret_EndsWithTheContextAndRestoresTheEcho(t *testing.T) {
	keyboard, screen := prompttest.Terminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	results := ask(ctx, t, screen)
	cancel()
	if r := await.Receive(t, results, "the end"); !errors.Is(r.err, context.Canceled) || !echoes(t, screen) {
		t.Errorf("%q, %v, echo %v", r.line, r.err, echoes(t, screen))
	}
	if _, err := keyboard.WriteString("\n"); err != nil { // Ends the read.
		t.Fatal(err)
	}
}
