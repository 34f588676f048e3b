package handler

import (
	"context"
	"net/http"

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

func serveContract(text []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// An error here means that the caller disconnected.
		_, _ = w.Write(text)
	}
}
