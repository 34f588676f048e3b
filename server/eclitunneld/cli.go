package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/eclitunnel/eclitunnel/internal/commandline"
	"github.com/eclitunnel/eclitunnel/internal/files"
	"github.com/eclitunnel/eclitunnel/server"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const description = `The EcliTunnel panel: public ports for game servers behind NAT.

Every flag can also be set by the environment variable named in its help. Secrets
are never flags; they come from the environment or from files:

    ECLITUNNEL_DATABASE_URL     connection URL of Postgres (or --database-url-file)
    ECLITUNNEL_ADMIN_PASSWORD   password of the first admin (or its file)
    ECLITUNNEL_SMTP_PASSWORD    password of the mail server's user (or its file)

Exit codes: 0 stopped or done, 1 failed, 2 wrong usage.`

// commands is the grammar of the command line.
type commands struct {
	Serve   serveCommand   `cmd:"" help:"Run the panel until it is stopped."`
	Migrate migrateCommand `cmd:"" help:"Update the database schema to this version and exit; serve does so too."`
	Admin   struct {
		Create createAdminCommand `cmd:"" help:"Create an admin, whether or not a panel is running."`
	} `cmd:"" help:"Manage admins."`
	Device struct {
		Create createDeviceCommand `cmd:"" help:"Create an approved device and print its token, for a tunnel server that runs where nobody can approve it."`
	} `cmd:"" help:"Manage devices, whether or not a panel is running."`
	Keys struct {
		List   listKeysCommand   `cmd:"" help:"List the signing keys of tokens."`
		Revoke revokeKeysCommand `cmd:"" help:"Revoke leaked keys and all tokens they signed; lists the devices that need new tokens."`
	} `cmd:"" help:"Manage signing keys, whether or not a panel is running."`
	Completion completionCommand `cmd:"" help:"Print the script that completes command lines in a shell."`
	Man        manCommand        `cmd:"" hidden:"" help:"Write the manual pages into a directory."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
}

// console is a command's standard input and outputs.
type console struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// usageError is an error in how the program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run parses the command line, runs its command and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := console{stdin: stdin, stdout: stdout, stderr: stderr}
	if err := cleanVariables(); err != nil {
		return out.fail(err)
	}
	helped, dataDir := false, defaultDataDir()
	if len(args) > 0 && args[0] == "man" {
		dataDir = systemDataDir // Pages are not of who writes them.
	}
	var grammar commands
	parser, err := kong.New(&grammar,
		kong.Name("eclitunneld"),
		kong.Description(description),
		kong.DefaultEnvars(variablePrefix),
		kong.Vars{"data_dir": dataDir, "acme_directory": server.DefaultACMEDirectory},
		kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoAppDescFormat: true}),
		// Help exits during parsing; parsing the rest has no effect.
		kong.Exit(func(int) { helped = true }),
		kong.BindTo(server.AsCommand(ctx, osUser()), (*context.Context)(nil)),
		kong.Bind(out),
	)
	if err != nil {
		return out.fail(fmt.Errorf("build the command line: %w", err))
	}
	if len(args) > 0 && args[0] == commandline.Word {
		return out.fail(commandline.Answer(stdout, args[1:], func(words []string) commandline.Completion {
			return commandline.Complete(parser.Model, words, nil)
		}))
	}
	if len(args) > 0 && args[0] == "help" { // The parser knows it as a flag only.
		args = append(slices.Clone(args[1:]), "--help")
	}
	parsed, err := parser.Parse(args)
	if helped {
		return exitOK
	}
	if err != nil {
		return out.fail(usageError{err})
	}
	return out.fail(parsed.Run())
}

// osUser returns the name of the user of the operating system who runs the program, for the
// audit trail, or the number of one without a name.
func osUser() string {
	current, err := user.Current()
	if err != nil {
		return strconv.Itoa(os.Getuid())
	}
	return current.Username
}

// fail prints an error and returns its exit code; nil is success.
func (c console) fail(err error) int {
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintf(c.stderr, "eclitunneld: %s\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// logFlags are the flags of every command that logs.
type logFlags struct {
	LogLevel  slog.Level `default:"info" placeholder:"LEVEL" help:"Lowest level to log: debug, info, warn or error (default: info)."`
	LogFormat string     `default:"text" enum:"text,json" placeholder:"FORMAT" help:"Format of the log on standard error: text or json (default: text)."`
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.LogLevel}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// databaseFlags are the flags of every command that uses the database.
type databaseFlags struct {
	DatabaseURLFile string `name:"database-url-file" placeholder:"FILE" help:"Read the connection URL of Postgres from this file. Without it and $$ECLITUNNEL_DATABASE_URL the panel runs its own Postgres."`
	DataDir         string `default:"${data_dir}" placeholder:"DIR" help:"Data directory of the panel's own Postgres (default: ${data_dir})."`
	SecretKeyFile   string `placeholder:"FILE" help:"Encrypt the private keys in the database, of signatures and of certificates, and the URLs and secrets of webhooks, with the first key of this file, which has one a line: 32 random bytes in base64 (default: not encrypted)."`
	PostgresBinDir  string `placeholder:"DIR" help:"Directory of initdb and postgres for the panel's own Postgres (default: searched in the usual places)."`
}

func (f databaseFlags) database() (server.Database, error) {
	url, err := secret("DATABASE_URL", f.DatabaseURLFile)
	if err != nil {
		return server.Database{}, err
	}
	database := server.Database{URL: strings.TrimSpace(url), DataDir: f.DataDir, PostgresBinDir: f.PostgresBinDir, SecretKeyFile: f.SecretKeyFile}
	if err := database.Check(); err != nil {
		return server.Database{}, usageError{err}
	}
	return database, nil
}

// systemDataDir is the data directory of a panel that root runs.
const systemDataDir = "/var/lib/eclitunneld"

// defaultDataDir returns the system's directory for root, the user's own for others,
// and the empty string if the user has none.
func defaultDataDir() string {
	state := "/var/lib"
	if os.Geteuid() != 0 {
		state = os.Getenv("XDG_STATE_HOME")
		if !filepath.IsAbs(state) {
			home, err := os.UserHomeDir()
			if err != nil {
				return ""
			}
			state = filepath.Join(home, ".local", "state")
		}
	}
	return panelDir(state)
}

// panelDir is the panel's directory among those of other programs. The agent's is
// eclitunnel, which earlier versions of the panel used too: a database that is
// there stays in use.
func panelDir(state string) string {
	dir, former := filepath.Join(state, "eclitunneld"), filepath.Join(state, "eclitunnel")
	if !exists(filepath.Join(dir, "cluster")) && exists(filepath.Join(former, "cluster")) {
		return former
	}
	return dir
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

const variablePrefix = "ECLITUNNEL"

// cleanVariables unsets empty variables, with which systemd units and compose files leave
// a setting unset, and removes from the others what an editor added to the file that they
// come from: line breaks of Windows, a byte-order mark.
func cleanVariables() error {
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, variablePrefix+"_") {
			continue
		}
		clean, err := line(name, []byte(value))
		switch {
		case err != nil:
			return err
		case clean == "":
			_ = os.Unsetenv(name) // Its only error is a malformed name.
		case clean != value:
			_ = os.Setenv(name, clean)
		}
	}
	return nil
}

// secret returns the value of ECLITUNNEL_<name> or the content of a file, and the
// empty string if neither is given.
func secret(name, file string) (string, error) {
	variable := variablePrefix + "_" + name
	value := os.Getenv(variable)
	if file == "" {
		return value, nil
	}
	if value != "" {
		return "", usageError{fmt.Errorf("both %s and %s_FILE are given", variable, variable)}
	}
	return secretFile(file)
}

// inherited returns a secret that only the environment gives, in ECLITUNNEL_<name> or in
// the file that ECLITUNNEL_<name>_FILE names, and the name of that variable.
func inherited(name string) (value, variable string, err error) {
	variable = variablePrefix + "_" + name
	file := os.Getenv(variable + "_FILE")
	if value, err = secret(name, file); file != "" {
		variable += "_FILE"
	}
	return value, variable, err
}

// secretFile returns the one line of a file with a secret.
func secretFile(file string) (string, error) {
	content, err := files.ReadSecret(file)
	if err != nil {
		return "", usageError{err}
	}
	value, err := line(file, content)
	if err == nil && value == "" {
		err = usageError{fmt.Errorf("%s is empty", file)}
	}
	return value, err
}

// line returns the one line of what a person wrote.
func line(name string, content []byte) (string, error) {
	value, err := files.Line(name, content)
	if err != nil {
		return "", usageError{err}
	}
	return value, nil
}
