//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lib/pq"
)

const (
	// socketPort is part of the socket's file name. No TCP port is opened.
	socketPort = 5432

	// startLimit bounds a start. Recovery after a crash replays the log, which takes time on a slow
	// disk.
	startLimit = 5 * time.Minute
	// readyPoll is the interval between attempts to connect to a starting server.
	readyPoll = 25 * time.Millisecond
	// fastLimit bounds a fast shutdown, which ends sessions and writes a checkpoint.
	fastLimit = time.Minute
	// invalidAuthorization is the class of the SQLSTATEs with which a server that is ready refuses a user.
	invalidAuthorization = "28"
	// immediateLimit bounds an immediate shutdown. Postgres kills its children after 5 s.
	immediateLimit = 10 * time.Second
)

// Server is a running Postgres server. Its methods are safe for concurrent use.
type Server struct {
	socketDir string
	dir       *dataDir
	process   *process
	log       *serverLog
	logger    *slog.Logger
	release   func() // releases the socket directory, the log and the lock

	mu       sync.Mutex
	stopping bool
	released bool
}

// Start starts Postgres on the data directory, creates a database if there is none, and waits until
// Postgres accepts connections. ctx bounds only the start.
//
// Errors: [ErrNotInstalled], [ErrOtherVersion], [ErrInUse], [ErrNoDatabase]; others say what is wrong with the
// directory or end with the last lines of Postgres' log.
func Start(ctx context.Context, options Options) (*Server, error) {
	if options.DataDir == "" {
		return nil, errors.New("start postgres: no data directory given")
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.MustExist {
		_, err := os.Stat(filepath.Join(options.DataDir, clusterName))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w in %s", ErrNoDatabase, options.DataDir)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	dir, err := openDataDir(options.DataDir)
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	server, err := start(ctx, options, dir)
	if err != nil {
		dir.unlock()
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	return server, nil
}

func start(ctx context.Context, options Options, dir *dataDir) (*Server, error) {
	major, err := dir.version()
	if err != nil {
		return nil, err
	}
	bin, err := findBinaries(ctx, options.BinDir, major, dir.account)
	if err != nil {
		return nil, err
	}
	if err := stopLeftover(ctx, dir.cluster(), options.Logger); err != nil {
		return nil, err
	}
	if major == 0 {
		options.Logger.InfoContext(ctx, "creating database",
			slog.String("dir", dir.root), slog.String("version", bin.version), slog.String("systemUser", dir.account.name))
		if dir.account.name == fallbackAccount {
			options.Logger.WarnContext(ctx, "the database runs as a user that other programs may have: create the user eclitunneld or postgres before the first start",
				slog.String("systemUser", dir.account.name))
		}
		if err := dir.initialise(ctx, bin, options.Settings["fsync"] == "off", options.Logger); err != nil {
			return nil, err
		}
	} else if err := dir.prepare(ctx, options.Logger); err != nil {
		return nil, err
	}
	socketDir, removeSocketDir, err := dir.makeSocketDir()
	if err != nil {
		return nil, err
	}
	log, err := dir.openServerLog()
	if err != nil {
		removeSocketDir()
		return nil, err
	}
	cmd := dir.account.command(filepath.Join(bin.dir, "postgres"), serverArgs(dir.cluster(), socketDir, options.Settings)...)
	cmd.Dir = dir.cluster()
	cmd.Stdout, cmd.Stderr = log.file, log.file
	process, err := spawn(cmd, syscall.SIGINT)
	if err != nil {
		removeSocketDir()
		return nil, errors.Join(err, log.file.Close())
	}
	server := &Server{
		socketDir: socketDir, dir: dir, process: process, log: log, logger: options.Logger,
		release: func() {
			removeSocketDir()
			_ = log.file.Close()
			dir.unlock()
		},
	}
	if err := server.awaitReady(ctx); err != nil {
		// The process must be stopped even if ctx has ended.
		stopped := process.stop(context.WithoutCancel(ctx))
		removeSocketDir()
		return nil, errors.Join(err, stopped, log.file.Close())
	}
	options.Logger.InfoContext(ctx, "database started",
		slog.String("dir", dir.root), slog.String("version", bin.version), slog.String("systemUser", dir.account.name))
	return server, nil
}

func serverArgs(cluster, socketDir string, settings map[string]string) []string {
	// The parameter is a list of directories; quotes protect spaces in a name.
	quoted := `"` + strings.ReplaceAll(socketDir, `"`, `""`) + `"`
	args := []string{
		"-D", cluster,
		// Whatever postgresql.conf says.
		"-c", "hba_file=" + filepath.Join(cluster, hbaName),
		"-c", "ident_file=" + filepath.Join(cluster, identName),
		"-c", "listen_addresses=",
		"-c", "port=" + strconv.Itoa(socketPort),
		"-c", "unix_socket_directories=" + quoted,
		"-c", "unix_socket_permissions=0700",
		"-c", "log_destination=stderr",
		"-c", "logging_collector=off",
	}
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

func (s *Server) urlOf(role string) string {
	query := url.Values{"host": {s.socketDir}, "port": {strconv.Itoa(socketPort)}, "sslmode": {"disable"}}
	u := url.URL{Scheme: "postgres", User: url.User(role), Path: "/postgres", RawQuery: query.Encode()}
	return u.String()
}

// awaitReady waits until Postgres accepts a connection, and has it ready for the panel.
func (s *Server) awaitReady(ctx context.Context) error {
	// Not by the URL, to which lib/pq would add what the environment says.
	connector, err := pq.NewConnectorConfig(pq.Config{
		Host: s.socketDir, Port: socketPort, User: superuser, Database: "postgres", SSLMode: pq.SSLModeDisable,
		ClientEncoding: "UTF8", Datestyle: "ISO, MDY",
		MinProtocolVersion: pq.ProtocolVersion30, MaxProtocolVersion: pq.ProtocolVersion30,
	})
	if err != nil {
		return err
	}
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		conn, err := connector.Connect(ctx)
		if err == nil {
			return errors.Join(conn.Close(), s.makePanelRole(ctx, connector))
		}
		if refused := new(pq.Error); errors.As(err, &refused) && refused.Code.Class() == invalidAuthorization {
			return fmt.Errorf("it refuses the panel: %w\n%s", err, s.log.tail())
		}
		select {
		case <-s.process.done:
			return fmt.Errorf("it exited at once (%s):\n%s", s.process.state(), s.log.tail())
		case <-ctx.Done():
			return fmt.Errorf("it accepts no connections (%w): %w\n%s", err, ctx.Err(), s.log.tail())
		case <-ticker.C:
		}
	}
}

// URL returns the URL with which the panel connects to the database postgres. Its role owns the database
// and is no superuser. Postgres takes it from processes of its own user and of root alone.
func (s *Server) URL() string { return s.urlOf(panelRole) }

// SuperuserURL is URL for the superuser. It is for tests, which make databases.
func (s *Server) SuperuserURL() string { return s.urlOf(superuser) }

// NoteURL writes the URL to a private file in the data directory, for other programs of its owner.
func (s *Server) NoteURL(name string) error {
	// What an earlier run left there may be another user's.
	if err := os.Remove(filepath.Join(s.dir.root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := s.dir.openOwn(name, os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = file.WriteString(s.URL())
	return errors.Join(err, file.Close())
}

// Done returns a channel that is closed when the server has ended, whether or not Stop was called.
func (s *Server) Done() <-chan struct{} { return s.process.done }

// Err returns why the server ended without a Stop, with the last lines of its log. It returns nil while
// the server runs and after a Stop.
func (s *Server) Err() error {
	select {
	case <-s.process.done:
	default:
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil
	}
	return fmt.Errorf("postgres ended unexpectedly (%s):\n%s", s.process.state(), s.log.tail())
}

// Stop shuts the server down cleanly. If ctx ends first, it shuts it down immediately and returns an
// error; the next start then recovers. Stop returns when no process is left. A second Stop does
// nothing.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	select {
	case <-s.process.done:
	default:
		s.stopping = true
	}
	s.mu.Unlock()

	err := s.process.stop(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released {
		return nil
	}
	s.released = true
	s.release()
	if err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	s.logger.InfoContext(ctx, "database stopped", slog.Int("pid", s.process.pid))
	return nil
}

// removeAll removes a directory that is no longer needed. It ignores errors: the next start removes
// what is left.
func removeAll(path string) { _ = os.RemoveAll(path) }
