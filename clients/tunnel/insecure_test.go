package tunnel_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
)

func TestNew_NeedsInsecureForHTTPToAnotherMachine(t *testing.T) {
	for address, insecure := range map[string]bool{
		"http://127.0.0.1:8080": false, "http://127.9.9.9": false, "http://[::1]:8080": false, "http://[::ffff:127.0.0.1]": false,
		"http://localhost:8080": false, "http://LocalHost.": false, "http://panel.localhost:1/path": false, "https://panel.test": false,
		"https://192.0.2.1:8443": false,
		"http://panel.test":      true, "http://192.0.2.1:8080": true, "http://[2001:db8::1]": true, "http://0.0.0.0": true, "http://[::]": true,
		"HTTP://panel.test": true, " http://panel.test/ ": true, "http://localhost.panel.test": true, "http://127.1": true, "http://10.0.0.1/panel": true,
		"http://[fe80::1%25localhost]": true,
	} {
		if got := tunnel.IsInsecure(address); got != insecure {
			t.Errorf("%q: insecure is %v", address, got)
		}
		var refused *tunnel.InsecureError
		if _, err := tunnel.New(tunnel.Options{PanelURL: address}); errors.As(err, &refused) != insecure || !insecure && err != nil {
			t.Errorf("%q: %v", address, err)
		}
		if _, err := tunnel.New(tunnel.Options{PanelURL: address, Insecure: true}); err != nil {
			t.Errorf("%q with Insecure: %v", address, err)
		}
	}
}

func TestClient_ARedirectToHTTPGetsNoToken(t *testing.T) {
	var reached atomic.Int64
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(plain.Close)
	linetest.ResolveAll(t, "127.0.0.1")
	for _, status := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		s := httptest.NewTLSServer(http.RedirectHandler(strings.Replace(plain.URL, "127.0.0.1", "panel.test", 1), status))
		t.Cleanup(s.Close)
		c := newClient(t, tunnel.Options{PanelURL: s.URL, HTTPClient: s.Client(), Token: func() string { return "tok" }})
		_, err := c.Devices(t.Context())
		assertUnreachable(t, err, "redirects")
		_, err = c.Login(t.Context(), "ada@panel.test", "secret")
		assertUnreachable(t, err, "redirects")
		_, err = c.ControlChannel(t.Context())
		assertUnreachable(t, err, "redirects")
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests followed the redirect", n)
	}
}
