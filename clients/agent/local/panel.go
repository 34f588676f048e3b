package local

import (
	"context"
	"errors"
	"net/http"
	"net/http/httputil"
	"path"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
)

const (
	// maxBody is more than any request of a device takes, in bytes, and panelTimeout the
	// time for one, its answer included.
	maxBody      = 1 << 20
	panelTimeout = 60 * time.Second
)

// panel passes a request on to the panel.
func (h *handler) panel(w http.ResponseWriter, r *http.Request) {
	to := strings.TrimPrefix(r.URL.Path, panelPrefix)
	if !h.permits(r.Method, to) || r.URL.RawPath != "" {
		http.Error(w, "This is not for programs of this machine.", http.StatusForbidden)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), panelTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Path, p.Out.URL.RawPath = to, ""
			p.Out.Header.Del("X-Forwarded-For")
		},
		Transport: forward(h.Panel.Forward),
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del("Set-Cookie")
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
				http.Error(w, "The request is too long.", http.StatusRequestEntityTooLarge)
				return
			}
			reason := err.Error()
			if unreachable := (*tunnel.UnreachableError)(nil); errors.As(err, &unreachable) {
				reason = unreachable.Reason
			}
			w.Header().Set(failureHeader, strings.Map(printable, reason))
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	proxy.ServeHTTP(w, r)
}

// permits reports whether a request is one that the agent's own commands make: about the
// device's ports, about the device itself, and for the panel's version. Others may answer
// with a token.
func (h *handler) permits(method, to string) bool {
	const allocations = "/api/tunnel/allocations"
	read := method == http.MethodGet
	switch {
	case to != path.Clean(to):
		return false
	case to == allocations, strings.HasPrefix(to, allocations+"/"):
		return read || method == http.MethodPost || method == http.MethodPatch || method == http.MethodPut || method == http.MethodDelete
	default:
		return read && (to == "/api/version" || to == "/api/tunnel/devices/"+h.Info.Device.String())
	}
}

type forward func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f forward) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// printable keeps a header's value to what one may contain.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}
