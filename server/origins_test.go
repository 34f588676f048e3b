package server_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// plain sends requests that are not of the contract, such as a browser's.
func plain(t *testing.T, transport *http.Transport, method, url string, header ...string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			request.Host = header[i+1]
		}
		request.Header.Add(header[i], header[i+1])
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return response
}

func newTransport(t *testing.T) *http.Transport {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func withoutTunnelServer(o *server.Options) { o.TunnelServer.Disabled = true }

func TestOrigins_ListedOnesUseTheAPIWithCredentials(t *testing.T) {
	p := servertest.Start(t, withoutTunnelServer, func(o *server.Options) {
		o.AllowedOrigins = []string{"https://App.example.com:443/", " http://localhost:3000 ", "https://[2001:DB8::1]:8443"}
	})
	transport := newTransport(t)
	for origin, allowed := range map[string]bool{
		"https://app.example.com":          true,
		"http://localhost:3000":            true,
		"https://[2001:db8::1]:8443":       true,
		"http://app.example.com":           false,
		"https://app.example.com:8443":     false,
		"https://app.example.com.evil.com": false,
		"https://evilapp.example.com":      false,
		"https://example.com":              false,
		"null":                             false,
	} {
		got := plain(t, transport, "OPTIONS", p.URL+"/api/tunnel/devices/3f0e2a6c-6f0b-4c0e-9f57-0d6f3c2f9a11", "Origin", origin,
			"Access-Control-Request-Method", "PATCH", "Access-Control-Request-Headers", "authorization,content-type")
		want := map[string]string{"Access-Control-Allow-Origin": "", "Access-Control-Allow-Credentials": "", "Access-Control-Allow-Methods": ""}
		if allowed {
			want = map[string]string{
				"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true",
				"Access-Control-Allow-Methods": "PATCH", "Access-Control-Allow-Headers": "authorization,content-type",
				"Access-Control-Max-Age": "600",
			}
		}
		wantHeader(t, origin+" asks first", got, http.StatusNoContent, want)

		// An error is read as well as an answer.
		got = plain(t, transport, "GET", p.URL+"/api/auth/session", "Origin", origin)
		want = map[string]string{"Access-Control-Allow-Origin": "", "Access-Control-Expose-Headers": ""}
		if allowed {
			want = map[string]string{
				"Access-Control-Allow-Origin":   origin,
				"Access-Control-Expose-Headers": "Allow, Deprecation, Etag, Idempotency-Replayed, Link, Location, Ratelimit, Ratelimit-Policy, Retry-After, Sunset, X-Request-Id",
			}
		}
		wantHeader(t, origin, got, http.StatusUnauthorized, want)

		// A browser sends the cookie where SameSite permits it; whether it counts is up to the panel.
		status := http.StatusUnauthorized
		if allowed {
			status = http.StatusNoContent
		}
		got = plain(t, transport, "POST", p.URL+"/api/auth/logout", "Origin", origin, "Sec-Fetch-Site", "same-site", "Cookie", "session="+p.Login())
		wantHeader(t, origin+" writes", got, status, nil)
	}
}

func wantHeader(t *testing.T, what string, got *http.Response, status int, header map[string]string) {
	t.Helper()
	if got.StatusCode != status || header != nil && !strings.Contains(strings.Join(got.Header.Values("Vary"), ","), "Origin") {
		t.Errorf("%s: %d, Vary %q", what, got.StatusCode, got.Header.Values("Vary"))
	}
	for name, value := range header {
		if got.Header.Get(name) != value {
			t.Errorf("%s: %s is %q, want %q", what, name, got.Header.Get(name), value)
		}
	}
}

func TestOrigins_AreNotLetInByDefault(t *testing.T) {
	p := servertest.Start(t, withoutTunnelServer)
	transport := newTransport(t)
	got := plain(t, transport, "OPTIONS", p.URL+"/api/auth/session", "Origin", p.URL, "Access-Control-Request-Method", "GET")
	if got.StatusCode != http.StatusMethodNotAllowed || got.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d, %v", got.StatusCode, got.Header)
	}
	got = plain(t, transport, "GET", p.URL+"/api/version", "Origin", "https://app.example.com")
	if got.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v", got.Header)
	}
}

func TestNew_SaysWhatIsWrongWithAnAllowedOrigin(t *testing.T) {
	for origin, said := range map[string]string{
		"*":                             "no wildcards",
		"https://*.example.com":         "no wildcards",
		"null":                          "sandboxed",
		"":                              "such as https://app.example.com",
		"app.example.com":               "such as https://app.example.com",
		"ftp://app.example.com":         "such as https://app.example.com",
		"https://:443":                  "such as https://app.example.com",
		"https://app.example.com/panel": "just a scheme",
		"https://app.example.com?x":     "just a scheme",
		"https://me@app.example.com":    "just a scheme",
		"https://büro.example.com":      "ASCII",
		"http://app.example.com":        "use https",
	} {
		origins := []string{"https://good.example.com", "http://localhost:3000", "http://127.0.0.1", origin}
		options := server.Options{
			Database:       server.Database{URL: "postgres://localhost/x"},
			PublicURL:      &url.URL{Scheme: "https", Host: "panel.example.com"},
			AllowedOrigins: origins,
		}
		ofEcliPanel := options
		ofEcliPanel.AllowedOrigins = nil
		ofEcliPanel.EcliPanel = server.EcliPanel{URL: &url.URL{Scheme: "http", Host: "10.0.0.5:3000"}, Origins: origins}
		for _, options := range []server.Options{options, ofEcliPanel} {
			_, err := server.New(options)
			if err == nil || !strings.Contains(err.Error(), said) || !strings.Contains(err.Error(), `"`+origin+`"`) {
				t.Errorf("%q: %v", origin, err)
			}
		}
	}
}

func TestHSTS_IsSentOverTLSForNamesOnly(t *testing.T) {
	certFile, keyFile, roots := certify(t)
	overTLS := func(o *server.Options) { o.TLSCertFile, o.TLSKeyFile = certFile, keyFile }
	proxied := func(o *server.Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }
	off := func(o *server.Options) { o.HSTSMaxAge = -1 }
	nothing := func(*server.Options) {}
	https, http := []string{"X-Forwarded-Proto", "https"}, []string{"X-Forwarded-Proto", "http"}
	for name, test := range map[string]struct {
		one, other func(*server.Options)
		host       string
		header     []string
		want       string
	}{
		"TLS":                             {overTLS, nothing, "panel.example.com", nil, "max-age=2592000"},
		"TLS on another port":             {overTLS, nothing, "panel.example.com:8443", nil, "max-age=2592000"},
		"TLS, switched off":               {overTLS, off, "panel.example.com", nil, ""},
		"TLS by an address":               {overTLS, nothing, "127.0.0.1:8443", nil, ""},
		"TLS by an IPv6 address":          {overTLS, nothing, "[2001:db8::1]", nil, ""},
		"TLS by the name of this machine": {overTLS, nothing, "localhost", nil, ""},
		"a trusted proxy with TLS":        {proxied, nothing, "panel.example.com", https, "max-age=2592000"},
		"a trusted proxy without TLS":     {proxied, nothing, "panel.example.com", http, ""},
		"a trusted proxy, switched off":   {proxied, off, "panel.example.com", https, ""},
		"somebody who says so":            {nothing, nothing, "panel.example.com", https, ""},
		"no TLS":                          {nothing, nothing, "panel.example.com", nil, ""},
		"TLS by the players' name":        {overTLS, nothing, "play.example.com", nil, ""},
		"a proxy by the players' name":    {proxied, nothing, "play.example.com", https, ""},
	} {
		t.Run(name, func(t *testing.T) {
			own := test.host
			if strings.HasPrefix(own, "play.") {
				own = "panel.example.com"
			}
			_, transport := startAt(t, "https://"+own, withoutTunnelServer, test.one, test.other)
			transport.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
			scheme := "http://"
			if strings.HasPrefix(name, "TLS") {
				scheme = "https://"
			}
			for _, path := range []string{"/device", "/readyz", "/api/auth/session", "/nothing"} {
				got := plain(t, transport, "GET", scheme+test.host+path, test.header...)
				if header := got.Header.Get("Strict-Transport-Security"); header != test.want {
					t.Errorf("%s: %q", path, header)
				}
			}
		})
	}
}
