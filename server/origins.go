package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rs/cors"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// preflightMaxAge is how long, in seconds, a browser remembers what a page of another
// origin may send.
const preflightMaxAge = 600

// crossOrigin lets web pages of Options.otherOrigins read what next responds, and send it
// requests with credentials. Without any it returns next.
func (s *Server) crossOrigin(next http.Handler) http.Handler {
	origins := s.opts.otherOrigins()
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{
			http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		},
		AllowedHeaders: []string{"Accept", "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "X-API-Key", problem.RequestIDHeader},
		ExposedHeaders: []string{
			"Allow", "Deprecation", "ETag", "Idempotency-Replayed", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "Sunset",
			problem.RequestIDHeader,
		},
		AllowCredentials: true,
		MaxAge:           preflightMaxAge,
	}).Handler(next)
}

// otherOrigins returns the origins, besides the panel's own, whose web pages may use the API.
func (o Options) otherOrigins() []string { return slices.Concat(o.AllowedOrigins, o.EcliPanel.Origins) }

// parseOrigins returns the origins of a setting as browsers write them.
func (o Options) parseOrigins(setting string, texts []string) ([]string, error) {
	var origins []string
	for _, text := range texts {
		origin, err := o.parseOrigin(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", setting, text, err)
		}
		origins = append(origins, origin)
	}
	return origins, nil
}

// parseEcliPanelOrigins returns the origins of EcliPanel's pages as browsers write them.
func (o Options) parseEcliPanelOrigins() ([]string, error) {
	e := o.EcliPanel
	if e.URL == nil {
		return nil, nil
	}
	if len(e.Origins) > 0 {
		return o.parseOrigins("EcliPanel's origins", e.Origins)
	}
	// An address of the operator's network need not be one for pages.
	if origin, err := o.parseOrigin(e.URL.Scheme + "://" + e.URL.Host); err == nil {
		return []string{origin}, nil
	}
	return nil, nil
}

func (o Options) parseOrigin(text string) (string, error) {
	if strings.Contains(text, "*") {
		return "", errors.New("there are no wildcards: list each origin, such as https://app.example.com")
	}
	u, err := url.Parse(text)
	switch {
	case text == "null":
		return "", errors.New("it is what sandboxed pages of anybody and local files send")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "", errors.New("must be http:// or https://, a host and perhaps a port, such as https://app.example.com")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return "", errors.New("must be just a scheme, a host and perhaps a port")
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r > '~' }):
		return "", errors.New("must have its host in ASCII, as browsers send it (xn--…)")
	case u.Scheme == "http" && !netaddr.IsLoopbackHost(u.Hostname()) && o.overTLS():
		return "", errors.New("a page over http can be changed on its way, and the panel is served over https; use https")
	}
	host := strings.ToLower(u.Host)
	port := map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
	return u.Scheme + "://" + strings.TrimSuffix(strings.TrimSuffix(host, port), ":"), nil
}

// overTLS reports whether people reach the panel over TLS.
func (o Options) overTLS() bool {
	return o.TLSCertFile != "" || o.ACME.enabled() || o.PublicURL != nil && o.PublicURL.Scheme == "https"
}

// setTransportSecurity has browsers that have reached the panel over TLS come back over TLS
// only (RFC 6797). It does so for the panel's own name alone: that of players may lead here
// too, where games are maps and pages over http. It does not where that is an address, for
// which browsers ignore it, or this machine's own name, which other programs have too.
func (s *Server) setTransportSecurity(w http.ResponseWriter, r *http.Request) {
	host := (&url.URL{Host: r.Host}).Hostname()
	if s.opts.HSTSMaxAge <= 0 || !auth.Secure(r, s.opts.TrustedProxies) || !strings.EqualFold(host, s.url.Hostname()) || !netaddr.IsPublicName(host) {
		return
	}
	w.Header().Set("Strict-Transport-Security", fmt.Sprintf("max-age=%d", s.opts.HSTSMaxAge/time.Second))
}
