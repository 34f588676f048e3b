package handler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// GetJWKS returns the public keys of tokens and tickets.
func (a *api) GetJWKS(context.Context, server.GetJWKSRequestObject) (server.GetJWKSResponseObject, error) {
	return server.GetJWKS200JSONResponse(a.auth.JWKS()), nil
}

// GetHealth reports that the process is alive.
func (a *api) GetHealth(context.Context, server.GetHealthRequestObject) (server.GetHealthResponseObject, error) {
	return server.GetHealth200JSONResponse(types.Health{Status: "ok"}), nil
}

// GetReadiness reports whether the panel can serve requests.
func (a *api) GetReadiness(ctx context.Context, _ server.GetReadinessRequestObject) (server.GetReadinessResponseObject, error) {
	if err := a.ready(ctx); err != nil {
		return nil, err
	}
	return server.GetReadiness200JSONResponse(types.Health{Status: "ok"}), nil
}

// GetVersion returns the panel's version.
func (a *api) GetVersion(context.Context, server.GetVersionRequestObject) (server.GetVersionResponseObject, error) {
	return server.GetVersion200JSONResponse(a.version), nil
}

// serveContract serves one form of the contract. Caches may keep it, and ask each time
// whether it is still the one, so that an upgrade takes effect at once.
func serveContract(contentType string, text []byte) http.HandlerFunc {
	sum := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", tag)
		if matchesTag(r.Header.Values("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", contentType)
		// An error here means that the caller disconnected.
		_, _ = w.Write(text)
	}
}

// matchesTag reports whether the lines of an If-None-Match header name tag. Proxies that
// compress a response weaken its tag, which makes no difference here (RFC 9110 section
// 13.1.2).
func matchesTag(lines []string, tag string) bool {
	for named := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		named = strings.TrimSpace(named)
		if named == "*" || strings.TrimPrefix(named, "W/") == tag {
			return true
		}
	}
	return false
}
