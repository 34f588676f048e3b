//go:build !unix

package postgres

import (
	"context"
	"errors"
)

// Server is not supported on this operating system.
type Server struct{}

// Start returns an error: this operating system is not supported.
func Start(context.Context, Options) (*Server, error) {
	return nil, errors.New("the embedded Postgres runs on Linux and macOS only; set ECLITUNNEL_DATABASE_URL to use your own server")
}

// URL returns the empty string.
func (*Server) URL() string { return "" }

// SuperuserURL returns the empty string.
func (*Server) SuperuserURL() string { return "" }

// NoteURL does nothing.
func (*Server) NoteURL(string) error { return nil }

// Done returns a channel that never closes.
func (*Server) Done() <-chan struct{} { return nil }

// Err returns nil.
func (*Server) Err() error { return nil }

// Stop does nothing.
func (*Server) Stop(context.Context) error { return nil }
