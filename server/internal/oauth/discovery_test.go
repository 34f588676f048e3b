package oauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server/internal/oauth"
)

// store is a Store without a database, that refuses nobody. It is for one login at a time.
type store struct {
	oauth.Store
	counts map[string]int
}

func (store) LoginSecret(context.Context) ([]byte, error) { return make([]byte, 32), nil }

func (s store) Take(_ context.Context, key string, _ int, _ time.Duration, _ time.Time) (db.Attempt, error) {
	s.counts[key]++
	return db.Attempt{}, nil
}

func (s store) Refund(_ context.Context, key string) error {
	s.counts[key]--
	return nil
}

// discovered is a provider that has metadata, and a panel that knows the provider.
type discovered struct {
	*oauth.Providers
	issuer   string
	requests chan struct{} // Has an element for each request that has come.
	counts   map[string]int

	mu     sync.Mutex
	now    time.Time
	answer func(w http.ResponseWriter, r *http.Request) // nil answers the metadata.
}

// discover starts a provider of a type. Requests to it end after a timeout.
func discover(t *testing.T, kind string, timeout time.Duration) *discovered {
	t.Helper()
	d := &discovered{requests: make(chan struct{}, 100), counts: map[string]int{}, now: time.Now()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.requests <- struct{}{}
		d.mu.Lock()
		answer := d.answer
		d.mu.Unlock()
		if answer == nil {
			answer = d.metadata(d.issuer)
		}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	d.issuer = server.URL
	settings, err := oauth.ReadFile(write(t, t.TempDir(), "providers.yaml",
		fmt.Sprintf(`providers: [{id: company, type: %s, issuer: %q, clientId: eclitunnel}]`, kind, d.issuer)))
	if err != nil {
		t.Fatal(err)
	}
	d.Providers, err = oauth.New(t.Context(), oauth.Options{
		Providers: settings, Store: store{counts: d.counts}, PublicURL: &url.URL{Scheme: "https", Host: "panel.example.com"}, Timeout: timeout, Now: d.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func (d *discovered) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *discovered) advance(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

func (d *discovered) set(answer func(w http.ResponseWriter, r *http.Request)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = answer
}

// metadata answers those of an issuer.
func (d *discovered) metadata(issuer string) func(w http.ResponseWriter, r *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{
			"issuer": issuer, "authorization_endpoint": d.issuer + "/authorize", "token_endpoint": d.issuer + "/token",
			"userinfo_endpoint": d.issuer + "/userinfo", "jwks_uri": d.issuer + "/keys",
		})
	}
}

// begin begins a login.
func (d *discovered) begin(ctx context.Context) error {
	location, _, err := d.Begin(ctx, "company", "/", nil)
	if err == nil && !strings.HasPrefix(location, d.issuer+"/authorize?") {
		err = fmt.Errorf("leads to %s", location)
	}
	return err
}

func wantReason(t *testing.T, what string, err error, reason oauth.Reason) {
	t.Helper()
	var failure *oauth.Failure
	if !errors.As(err, &failure) || failure.Reason != reason || failure.Cause == nil {
		t.Errorf("%s: %v, want the reason %s", what, err, reason)
	}
}

// hang does not answer before the caller has left.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func TestProviders_CallersOfAHangingProviderWaitTogether(t *testing.T) {
	d := discover(t, "oidc", 300*time.Millisecond)
	d.set(func(w http.ResponseWriter, r *http.Request) {
		d.advance(5 * time.Second) // As long as callers wait by default.
		hang(w, r)
	})
	results := make(chan error)
	for range 5 {
		go func() { results <- d.begin(t.Context()) }()
	}
	for range 5 {
		wantReason(t, "a caller", await.Receive(t, results, "result"), oauth.Unreachable)
	}
	wantReason(t, "a caller after that", d.begin(t.Context()), oauth.Unreachable)
	if n := len(d.requests); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
}

func TestProviders_ACallerThatLeavesEndsNoReadOfOthers(t *testing.T) {
	d := discover(t, "oauth2", time.Minute)
	release := make(chan struct{})
	d.set(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
			d.metadata(d.issuer)(w, r)
		case <-r.Context().Done():
		}
	})
	first, others := make(chan error), make(chan error)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	go func() { first <- d.begin(ctx) }()
	await.Receive(t, d.requests, "request")
	for range 3 {
		go func() { others <- d.begin(t.Context()) }()
	}
	leave()
	if err := await.Receive(t, first, "result of the caller that has left"); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller that has left got %v", err)
	}
	close(release)
	for range 3 {
		if err := await.Receive(t, others, "result"); err != nil {
			t.Error(err)
		}
	}
	if n := len(d.requests); n != 0 {
		t.Errorf("the provider was asked %d times more", n)
	}
}

func TestProviders_MetadataStayInUseForADayWithoutTheProvider(t *testing.T) {
	d := discover(t, "oidc", time.Minute)
	begin := func(what string) {
		t.Helper()
		if err := d.begin(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	begin("at first")
	d.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	begin("before the hour ends")
	if n := len(d.requests); n != 1 {
		t.Errorf("the provider was asked %d times within the hour", n)
	}
	d.advance(time.Hour)
	begin("after an hour")
	d.set(hang)
	d.advance(5 * time.Second)
	begin("while the provider hangs") // Longer than this test may.
	await.Until(t, "the third request", func() bool { return len(d.requests) == 3 })
	d.advance(23*time.Hour - 6*time.Second)
	begin("at the end of the day")

	// The same, of a provider that answers.
	d = discover(t, "oauth2", time.Minute)
	begin("at first")
	d.set(d.metadata("https://login.example.com"))
	d.advance(24*time.Hour - time.Second)
	begin("with metadata of another issuer")
	d.advance(5 * time.Second)
	wantReason(t, "after a day", d.begin(t.Context()), oauth.Refused)
	d.set(nil)
	wantReason(t, "a moment later", d.begin(t.Context()), oauth.Refused)
	d.advance(5 * time.Second)
	begin("when the provider is back")
}

func TestProviders_CloseEndsAReadOfMetadata(t *testing.T) {
	d := discover(t, "oidc", time.Minute)
	d.set(hang)
	result := make(chan error)
	go func() { result <- d.begin(t.Context()) }()
	await.Receive(t, d.requests, "request")
	d.Close()
	wantReason(t, "a caller", await.Receive(t, result, "result"), oauth.Unreachable)
	wantReason(t, "a caller after that", d.begin(t.Context()), oauth.Unreachable)
}

func TestProviders_ReasonsOfMetadataThatCannotBeRead(t *testing.T) {
	redirected := make(chan struct{}, 10)
	another := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { redirected <- struct{}{} }))
	t.Cleanup(another.Close)
	text := func(status int, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for _, kind := range []string{"oidc", "oauth2"} {
		for what, test := range map[string]struct {
			reason oauth.Reason
			answer func(w http.ResponseWriter, r *http.Request)
		}{
			"a redirect": {oauth.Refused, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, another.URL, http.StatusFound)
			}},
			"another issuer":    {oauth.Refused, (&discovered{}).metadata("https://login.example.com")},
			"no such page":      {oauth.Refused, text(404, "<html>")},
			"a page":            {oauth.Refused, text(200, "<html>")},
			"an empty object":   {oauth.Refused, text(200, "{}")},
			"too long":          {oauth.Refused, text(200, strings.Repeat(" ", 1<<20)+"{}")},
			"broken":            {oauth.Unreachable, text(500, "")},
			"a broken proxy":    {oauth.Unreachable, text(502, "<html>")},
			"too many requests": {oauth.Unreachable, text(429, "")},
			"a connection that is cut": {oauth.Unreachable, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(`{"issuer":`))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}},
			"an answer that hangs": {oauth.Unreachable, func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte(`{"issuer":`))
				_ = http.NewResponseController(w).Flush()
				hang(w, r)
			}},
		} {
			timeout := time.Minute
			if what == "an answer that hangs" {
				timeout = 100 * time.Millisecond
			}
			d := discover(t, kind, timeout)
			d.set(test.answer)
			wantReason(t, kind+", "+what, d.begin(t.Context()), test.reason)
		}
	}
	if n := len(redirected); n > 0 {
		t.Errorf("%d redirects were followed", n)
	}
}
