package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	postgresPort = 5432
	// standbyPort is that of a standby until it takes over.
	standbyPort = 5433
	// postgresPatience is how long a server may take to start.
	postgresPatience = 30 * time.Second
)

// PostgresOptions say how to run a Postgres server.
type PostgresOptions struct {
	// Dir is an existing directory; see NewDir. Everything is kept below it.
	Dir string
	// Host is the address on which it listens, at port 5432; the zero value means
	// a Unix socket alone.
	Host netip.Addr
	// Place is the machine it runs on; nil is this one.
	Place *Place
	// Settings are server settings, as name=value.
	Settings []string
}

// Postgres is a Postgres server without authentication, and its
// standby while there is one. Both run on one machine: a standby takes over the
// address.
type Postgres struct {
	options    PostgresOptions
	bin        string
	account    *syscall.Credential // nil is ours.
	dir        string
	generation int // Of the data directory: each standby has a new one.
	process    *Process
	standby    *Process
}

// NewPostgres makes a database cluster. See Start.
func NewPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	p := &Postgres{options: o, dir: filepath.Join(o.Dir, "postgres")}
	p.options.Place = cmp.Or(o.Place, new(Place))
	var err error
	if p.bin, err = postgresBin(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	if p.account, err = postgresAccount(); err != nil {
		return nil, err
	}
	if p.account != nil {
		if err := os.Chown(p.dir, int(p.account.Uid), int(p.account.Gid)); err != nil {
			return nil, err
		}
	}
	if _, err := p.run(ctx, "initdb", "-D", p.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	hba := "local all,replication all trust\nhost all,replication all 0.0.0.0/0 trust\n"
	return p, os.WriteFile(filepath.Join(p.data(), "pg_hba.conf"), []byte(hba), 0o600)
}

// ErrNoPostgres is returned by NewPostgres where no PostgreSQL server is installed.
var ErrNoPostgres = errors.New("PostgreSQL is not installed; make setup installs it")

// postgresBin is the directory of a PostgreSQL server's programs.
func postgresBin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		// Its neighbours are where it is, and not where links to it are.
		path, err = filepath.EvalSymlinks(path)
		return filepath.Dir(path), err
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return "", errors.Join(ErrNoPostgres, err)
	}
	return found[len(found)-1], nil
}

// postgresAccount is the account Postgres runs as where this process is root's,
// as which it refuses to run; nil is ours.
func postgresAccount() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	found, err := user.Lookup("postgres")
	if err != nil {
		if found, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(found.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(found.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// host is what its programs connect to: an address, or the directory of its socket.
func (p *Postgres) host() string {
	if p.options.Host.IsValid() {
		return p.options.Host.String()
	}
	return p.dir
}

// URL is where clients reach the server.
func (p *Postgres) URL() string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/postgres"}
	if p.options.Host.IsValid() {
		u.Host, u.RawQuery = net.JoinHostPort(p.host(), strconv.Itoa(postgresPort)), "sslmode=disable"
	} else {
		u.RawQuery = url.Values{"host": {p.dir}}.Encode()
	}
	return u.String()
}

func (p *Postgres) data() string { return filepath.Join(p.dir, strconv.Itoa(p.generation)) }

func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	//nolint:noctx // a server outlives the call that starts it; what ends is short
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.account}
	return cmd
}

// run runs one of its programs to the end, on its machine, and returns what it printed.
func (p *Postgres) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := p.command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := p.options.Place.Do(cmd.Start); err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() {
		//nolint:errcheck // it has ended, or ends
		cmd.Process.Kill()
	})()
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, out.String())
	}
	return out.String(), nil
}

// Query runs a statement and returns its rows, one a line, with a space between
// two columns.
func (p *Postgres) Query(ctx context.Context, statement string) (string, error) {
	return p.query(ctx, postgresPort, statement)
}

func (p *Postgres) query(ctx context.Context, port int, statement string) (string, error) {
	return p.run(ctx, "psql", "-XqAt", "-F", " ", "-v", "ON_ERROR_STOP=1", "-U", "postgres",
		"-h", p.host(), "-p", strconv.Itoa(port), "-c", statement)
}

// launch starts the server of a data directory.
func (p *Postgres) launch(data string, port int) (*Process, error) {
	args := []string{"-D", data, "-c", "port=" + strconv.Itoa(port), "-c", "max_connections=200"}
	if p.options.Host.IsValid() {
		args = append(args, "-c", "listen_addresses="+p.host(), "-c", "unix_socket_directories=")
	} else {
		args = append(args, "-c", "listen_addresses=", "-c", "unix_socket_directories="+p.dir)
	}
	for _, setting := range p.options.Settings {
		args = append(args, "-c", setting)
	}
	return p.options.Place.Start("postgres", p.command("postgres", args...), nil)
}

// Start starts the server and waits until it answers. After Kill it recovers first.
func (p *Postgres) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, postgresPatience)
	defer cancel()
	last := ""
	err := Until(ctx, "Postgres answers", func(ctx context.Context) (bool, error) {
		if p.process == nil {
			var err error
			if p.process, err = p.launch(p.data(), postgresPort); err != nil {
				return false, err
			}
		}
		select {
		case <-p.process.Done():
			// After kill -9 its child processes take a moment to end: it is tried again.
			last = p.process.LastLines(5)
			p.process = nil
			return false, nil
		default:
		}
		_, err := p.Query(ctx, "SELECT 1")
		if err != nil && ctx.Err() == nil {
			last = err.Error()
		}
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, last)
	}
	return nil
}

// Kill ends the server as a power cut would.
func (p *Postgres) Kill() error {
	err := p.process.Kill()
	p.process = nil
	return err
}

// Stop ends the server, and its standby before it, in order. An exit status that
// is not 0 is an error.
func (p *Postgres) Stop() error {
	var errs []error
	for _, process := range []*Process{p.standby, p.process} {
		if process == nil {
			continue
		}
		errs = append(errs, process.Signal(syscall.SIGINT)) // Its fast shutdown.
		<-process.Done()
		if code := process.ExitCode(); code != 0 {
			errs = append(errs, fmt.Errorf("postgres: exit code %d\n%s", code, process.LastLines(5)))
		}
	}
	p.process, p.standby = nil, nil
	return errors.Join(errs...)
}
