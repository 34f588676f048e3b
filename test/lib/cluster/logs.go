package cluster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// Logs keeps all that programs print, and the secrets that they are given and answer, so that at the end
// nothing of the one is found in the other. Its methods are safe for concurrent use; those of nil that
// note something do nothing.
//
// What a command prints on purpose is exempt by not being noted: the user code that `enroll` shows. Nothing
// else is.
type Logs struct {
	mu      sync.Mutex
	dir     string // Empty before the first log.
	files   []string
	secrets map[string]string // Kinds by value.
}

// kept is what KeepLogs has begun.
var kept atomic.Pointer[Logs]

// KeepLogs has every process from now on, and every client of [NewClient], noted in a new Logs.
func KeepLogs() *Logs {
	l := &Logs{secrets: map[string]string{}}
	kept.Store(l)
	return l
}

// Kept is the Logs of KeepLogs, nil before it.
func Kept() *Logs { return kept.Load() }

// create makes the file of a program's output.
func (l *Logs) create(program string) (file *os.File, err error) {
	err = l.add(program, func(path string) error {
		file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		return err
	})
	return file, err
}

// add has a function make the file of a log.
func (l *Logs) add(program string, make func(path string) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dir == "" {
		dir, err := os.MkdirTemp("", "eclitunnel-logs-")
		if err != nil {
			return err
		}
		l.dir = dir
	}
	path := filepath.Join(l.dir, fmt.Sprintf("%03d-%s", len(l.files)+1, filepath.Base(program)))
	if err := make(path); err != nil {
		return err
	}
	l.files = append(l.files, path)
	return nil
}

// Link keeps a log file that a program writes itself, also when its directory is removed.
func (l *Logs) Link(path string) error {
	if l == nil {
		return nil
	}
	return l.add(path, func(kept string) error { return os.Link(path, kept) })
}

// Add keeps the output of a command that has ended.
func (l *Logs) Add(program string, output ...[]byte) error {
	if l == nil {
		return nil
	}
	return l.add(program, func(path string) error {
		return os.WriteFile(path, bytes.Join(output, []byte("\n")), 0o600)
	})
}

// ErrSecretLogged is returned by Close.
var ErrSecretLogged = errors.New("a log shows a secret")

// Close searches the logs for every secret, as it is, escaped, and encoded. Where it finds one it returns
// [ErrSecretLogged] with the secret's kind, the log and the line, and leaves the logs; otherwise it
// removes them.
func (l *Logs) Close() error {
	kept.CompareAndSwap(l, nil)
	l.mu.Lock()
	files, dir := l.files, l.dir
	l.mu.Unlock()
	var errs []error
	for find := l.finder(); len(files) > 0; files = files[1:] {
		errs = append(errs, find.search(files[0]))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(dir) // Which does nothing if there is none.
}

func (f finder) search(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // It was read alone.
	var errs []error
	reader := bufio.NewReader(file)
	for number := 1; ; number++ {
		line, err := reader.ReadString('\n')
		if kinds, rest := f.find(line); len(kinds) > 0 {
			errs = append(errs, fmt.Errorf("%w: %s:%d: %s: %s", ErrSecretLogged, path, number, strings.Join(kinds, ", "), strings.TrimSpace(rest)))
		}
		if errors.Is(err, io.EOF) {
			return errors.Join(errs...)
		}
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
}

// Transport is that of a client whose answers are noted. A nil base is http.DefaultTransport.
func (l *Logs) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	if l == nil {
		return base
	}
	return noting{l, base}
}

type noting struct {
	logs *Logs
	base http.RoundTripper
}

func (n noting) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := n.base.RoundTrip(r)
	if err != nil || answer.StatusCode == http.StatusSwitchingProtocols {
		return answer, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	var head bytes.Buffer
	if err := answer.Header.Write(&head); err != nil {
		return nil, err
	}
	n.logs.Received(head.Bytes())
	n.logs.Received(body)
	return answer, nil
}
