package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/postgres"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
)

// stopPostgresTimeout bounds a clean shutdown of the embedded Postgres. If it is cut
// short, Postgres recovers at its next start, which takes longer.
const stopPostgresTimeout = 30 * time.Second

// addressFile is the file in the data directory that contains the URL of the running
// embedded Postgres, for commands that run beside the panel.
const addressFile = "database.url"

// Migrate migrates the database to the schema of this version. It is safe while panels
// use the database, and for several callers at once.
func Migrate(ctx context.Context, database Database, logger *slog.Logger) error {
	_, closeDB, err := open(ctx, database, logger)
	if err != nil {
		return err
	}
	return closeDB()
}

// open opens and migrates the database for a command. It shares an embedded Postgres
// with a running panel, or starts it if no panel runs.
func open(ctx context.Context, database Database, logger *slog.Logger) (_ *db.DB, closeDB func() error, err error) {
	if err := database.Check(); err != nil {
		return nil, nil, err
	}
	url := database.URL
	stop := func() error { return nil }
	if url == "" {
		if url, stop, err = acquirePostgres(ctx, database, logger); err != nil {
			return nil, nil, err
		}
	}
	d, err := openDB(ctx, url, logger)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return d, func() error { return errors.Join(d.Close(), stop()) }, nil
}

// acquirePostgres returns the URL of the embedded Postgres, and starts it if no panel
// runs it.
func acquirePostgres(ctx context.Context, database Database, logger *slog.Logger) (url string, stop func() error, err error) {
	server, err := startPostgres(ctx, database, logger)
	if errors.Is(err, postgres.ErrInUse) {
		url, err := os.ReadFile(filepath.Join(database.DataDir, addressFile))
		if err != nil {
			return "", nil, fmt.Errorf("the panel on %s is starting or stopping; try again", database.DataDir)
		}
		return string(url), func() error { return nil }, nil
	}
	if err != nil {
		return "", nil, err
	}
	return server.URL(), func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPostgresTimeout)
		defer cancel()
		return stopEmbedded(ctx, database, server)
	}, nil
}

// startPostgres starts the embedded Postgres and writes its URL to addressFile.
func startPostgres(ctx context.Context, database Database, logger *slog.Logger) (*postgres.Server, error) {
	server, err := postgres.Start(ctx, postgres.Options{DataDir: database.DataDir, BinDir: database.PostgresBinDir, Logger: logger})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(database.DataDir, addressFile), []byte(server.URL()), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("write the database's address: %w", err), server.Stop(ctx))
	}
	return server, nil
}

// stopEmbedded stops the embedded Postgres and releases the data directory, also if the
// server has already ended.
func stopEmbedded(ctx context.Context, database Database, server *postgres.Server) error {
	// Without the file, acquirePostgres asks to try again. If it stays behind, it is
	// not read before the next start has rewritten it.
	_ = os.Remove(filepath.Join(database.DataDir, addressFile))
	return server.Stop(ctx)
}

// startDatabase opens the database. It starts the embedded Postgres if the options do
// not name another.
func (s *Server) startDatabase(ctx, life context.Context) error {
	url := s.opts.Database.URL
	if url == "" {
		server, err := startPostgres(ctx, s.opts.Database, s.logger)
		if err != nil {
			return err
		}
		url = server.URL()
		s.background(life, "database", func(ctx context.Context) error { return s.supervisePostgres(ctx, server) })
	}
	d, err := s.awaitDB(ctx, url)
	if err != nil {
		return err
	}
	s.db = d
	s.addPart("database connections", func(context.Context) error { return d.Close() })
	return nil
}

// awaitDB opens the database and retries while it is unavailable. Process supervisors
// would retry too, but some wait minutes in between.
func (s *Server) awaitDB(ctx context.Context, url string) (*db.DB, error) {
	retry := backoff.Exponential{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	for logged := ""; ; {
		d, err := openDB(ctx, url, s.logger)
		if err == nil || !db.Unavailable(err) || ctx.Err() != nil {
			return d, err
		}
		// Log each reason once. It may be the only hint at a wrong setting.
		if reason := err.Error(); reason != logged {
			logged = reason
			s.logger.WarnContext(ctx, "waiting for the database", slog.Any("error", err))
		}
		if err := retry.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

func openDB(ctx context.Context, url string, logger *slog.Logger) (*db.DB, error) {
	d, err := db.Open(ctx, db.Options{URL: url, Logger: logger})
	if err != nil {
		return nil, err
	}
	if err := d.Migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate database: %w", err), d.Close())
	}
	return d, nil
}

// supervisePostgres stops server when ctx ends, and restarts Postgres if it dies.
// Ending the panel instead, for a process supervisor to restart, would end players'
// connections and control channels, which outlive the database but not the process. It
// returns an error if the panel can no longer reach the database.
func (s *Server) supervisePostgres(ctx context.Context, server *postgres.Server) error {
	url := server.URL()
	for {
		select {
		case <-server.Done():
			s.logger.ErrorContext(ctx, "database ended", slog.Any("error", server.Err()))
		case <-ctx.Done():
		}
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPostgresTimeout)
		err := stopEmbedded(stopping, s.opts.Database, server)
		cancel()
		if ctx.Err() != nil {
			return err
		}
		if server, err = s.restartPostgres(ctx); err != nil {
			return nil // ctx has ended, and nothing runs.
		}
		if server.URL() != url {
			// Happens only if the path of the data directory is too long for a socket.
			return errors.Join(errors.New("it restarted with another address"), server.Stop(ctx))
		}
	}
}

// restartPostgres starts Postgres. It retries until ctx ends, and returns no other
// error than ctx's.
func (s *Server) restartPostgres(ctx context.Context) (*postgres.Server, error) {
	retry := backoff.Exponential{Min: time.Second, Max: 30 * time.Second}
	for {
		server, err := startPostgres(ctx, s.opts.Database, s.logger)
		if err == nil {
			return server, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.logger.ErrorContext(ctx, "database not started", slog.Any("error", err))
		if err := retry.Wait(ctx); err != nil {
			return nil, err
		}
	}
}
