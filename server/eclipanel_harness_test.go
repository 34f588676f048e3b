package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// eclipanel stands in for EcliPanel: it answers as its API does.
type eclipanel struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	users    map[string]map[string]any // By credential: "Bearer …" or "ApiKey …".
	asked    int
	session  http.HandlerFunc // Answers in place of the users; nil is they do.
	features string           // The body of /api/public/features.
}

func newEcliPanel(t *testing.T) *eclipanel {
	e := &eclipanel{t: t, users: map[string]map[string]any{}, features: `{"featureToggles":{"billing":true}}`}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /panel/api/auth/session", e.serveSession)
	mux.HandleFunc("GET /panel/api/public/features", func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.features == "" {
			http.Error(w, "unavailable", http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, e.features)
	})
	e.Server = httptest.NewServer(mux)
	t.Cleanup(e.Close)
	return e
}

// serveSession finds the credential as EcliPanel does: the header, then the key, then the
// cookie.
func (e *eclipanel) serveSession(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.asked++
	special := e.session
	credential := r.Header.Get("Authorization")
	if key := r.Header.Get("X-Api-Key"); credential == "" && key != "" {
		credential = "ApiKey " + key
	}
	if cookie, err := r.Cookie("token"); credential == "" && err == nil {
		credential = "Bearer " + cookie.Value
	}
	user := e.users[credential]
	e.mu.Unlock()
	if len(r.Cookies()) > 1 || r.Header.Get("Origin") != "" {
		e.t.Errorf("more than the credential was forwarded: %d cookies, Origin %q", len(r.Cookies()), r.Header.Get("Origin"))
	}
	if special != nil {
		special(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if user == nil {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":"Unauthorized"}`)
		return
	}
	if err := json.NewEncoder(w).Encode(map[string]any{"user": user}); err != nil {
		e.t.Error(err)
	}
}

func (e *eclipanel) change(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

func (e *eclipanel) requests() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

// byKey returns a user as EcliPanel answers one for a key, or the access token of an OAuth app.
func byKey(user map[string]any) map[string]any {
	user = maps.Clone(user)
	delete(user, "sessionId")
	return user
}

// personOf returns a user as EcliPanel answers one for a session.
func personOf(id int, role string, orgs ...map[string]any) map[string]any {
	if orgs == nil {
		orgs = []map[string]any{}
	}
	return map[string]any{
		"id": id, "email": fmt.Sprintf("user%d@example.com", id), "role": role, "sessionId": "b1946ac9",
		"permissions": []string{"servers:read"}, "limits": map[string]any{"memory": 2048}, "kycRequired": false, "kycVerified": true,
		"orgs": orgs,
	}
}

func org(id int, name, role string) map[string]any {
	return map[string]any{"id": id, "name": name, "orgRole": role, "portalTier": "paid"}
}

// bearer is a bearer of EcliPanel's: no JWT, and long.
func bearer(name string) string { return name + "." + strings.Repeat("v4-local_", 570) }

// asking starts a panel that asks EcliPanel, and checks that no credential is in its log.
func (e *eclipanel) asking(cacheTime time.Duration, change ...func(*server.Options)) *servertest.Panel {
	e.t.Helper()
	var log testlog.Buffer
	e.t.Cleanup(func() {
		for _, secret := range []string{"v4-local_", "key-of-"} {
			if strings.Contains(log.String(), secret) {
				e.t.Errorf("the log has a credential:\n%s", log.String())
			}
		}
	})
	return servertest.Start(e.t, append([]func(*server.Options){func(o *server.Options) {
		base, err := url.Parse(e.URL + "/panel")
		if err != nil {
			e.t.Fatal(err)
		}
		o.EcliPanel = server.EcliPanel{URL: base, CacheTime: cacheTime}
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}}, change...)...)
}

// visitor is somebody at a panel, with a cookie jar.
type visitor struct {
	t    *testing.T
	at   string
	http *http.Client
}

func visit(t *testing.T, p *servertest.Panel, at string, cookies ...*http.Cookie) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	jar.SetCookies(u, cookies)
	return &visitor{t, at, &http.Client{Transport: p.HTTP.Transport, Jar: jar}}
}

func cookie(name, value string) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, Path: "/"}
}

// send sends a request, with headers as pairs, and returns the status and the body.
func (v *visitor) send(method, path, body string, headers ...string) (int, string) {
	v.t.Helper()
	status, text, err := v.try(v.t.Context(), method, path, body, headers...)
	if err != nil {
		v.t.Fatal(err)
	}
	return status, text
}

func (v *visitor) try(ctx context.Context, method, path, body string, headers ...string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, method, v.at+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := v.http.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// me returns who the visitor is, or the code of the error.
func (v *visitor) me(headers ...string) string {
	v.t.Helper()
	status, text := v.send(http.MethodGet, "/api/auth/session", "", headers...)
	var answer struct {
		User  types.User
		Error string
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		v.t.Fatal(err)
	}
	if status == http.StatusOK {
		return string(answer.User.Email) + " " + string(answer.User.Role)
	}
	return fmt.Sprint(status, " ", answer.Error)
}

func (v *visitor) becomes(want string) {
	v.t.Helper()
	await.Until(v.t, want, func() bool { return v.me() == want })
}

// proxy forwards to a panel as EcliPanel's own proxy does: cookie, authorization,
// content-type and origin, and nothing else.
func proxy(t *testing.T, p *servertest.Panel) string {
	t.Helper()
	panel, transport := p.URL, &http.Transport{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequestWithContext(r.Context(), r.Method, panel+r.URL.RequestURI(), r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		request.Host = "panel.internal" // No origin is that of the host that the panel sees.
		for _, name := range []string{"Cookie", "Authorization", "Content-Type", "Origin"} {
			if value := r.Header.Get(name); value != "" {
				request.Header.Set(name, value)
			}
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Errorf("the panel behind the proxy: %v", err)
			return
		}
		defer response.Body.Close()
		maps.Copy(w.Header(), response.Header)
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(transport.CloseIdleConnections)
	return server.URL
}
