//go:build linux

package attack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/role"
)

// requests is an attack by requests, each on a connection of its own. %d in what is sent
// becomes the number of the request. It runs in a process of its own: beside thousands of
// attackers, what the victim notices would be how long a goroutine waits for its turn.
type requests struct {
	URL, Path string
	Body      string // "": a GET.
	Token     string // "": none.
	Attackers int    // Requests under way.
	// From is the source of all; the zero value: each attacker has one of their own.
	From netip.Addr

	Answered string // The file for the number of requests that were answered.
}

const requestsRole = "requests"

var roles = map[string]role.Role{requestsRole: role.Of(playRequests)}

// start starts the attack. The returned function ends it and returns how many requests
// were answered.
func (r requests) start(t *testing.T) (stop func() int64) {
	t.Helper()
	r.Answered = filepath.Join(t.TempDir(), "answered")
	var ready bool
	process, err := role.Start(t.Context(), requestsRole, r, &ready, false)
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceValue(process.Stop)
	t.Cleanup(func() { _ = end() }) // Where the test has failed before.
	return func() (answered int64) {
		t.Helper()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(r.Answered)
		if err == nil {
			err = json.Unmarshal(text, &answered)
		}
		if err != nil {
			t.Fatal(err)
		}
		return answered
	}
}

func playRequests(ctx context.Context, r requests) (ready bool, stop func() error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	var number, answered atomic.Int64
	for n := range r.Attackers {
		from := r.From
		if !from.IsValid() {
			from = forged(n)
		}
		work.Go(func() {
			client := &http.Client{
				Timeout:   patience,
				Transport: &http.Transport{DialContext: dialerFrom(from).DialContext, DisableKeepAlives: true},
			}
			for ctx.Err() == nil {
				if r.send(ctx, client, number.Add(1)) {
					answered.Add(1)
					continue
				}
				// Cut off, as it should be, or over. Attackers do not spin on errors: they
				// share the machine with what they attack. All of them together are cut off
				// 15,000 times per second at most.
				select {
				case <-time.After(time.Duration(r.Attackers) * time.Second / 15_000):
				case <-ctx.Done():
				}
			}
		})
	}
	return true, func() error {
		cancel()
		work.Wait()
		return os.WriteFile(r.Answered, fmt.Append(nil, answered.Load()), 0o600)
	}, nil
}

// send reports whether a request was answered.
func (r requests) send(ctx context.Context, client *http.Client, number int64) bool {
	numbered := func(text string) string { return strings.ReplaceAll(text, "%d", fmt.Sprint(number)) }
	method := http.MethodGet
	if r.Body != "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, r.URL+numbered(r.Path), strings.NewReader(numbered(r.Body)))
	if err != nil {
		return false
	}
	if r.Body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if r.Token != "" {
		request.Header.Set("Authorization", "Bearer "+numbered(r.Token))
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode != http.StatusMethodNotAllowed && response.StatusCode != http.StatusBadRequest
}
