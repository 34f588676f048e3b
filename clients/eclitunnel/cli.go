package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/eclitunnel/eclitunnel/clients/agent/local"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/commandline"
	"github.com/eclitunnel/eclitunnel/internal/files"
)

const description = `The EcliTunnel agent: public ports for game servers behind NAT.

Enroll this machine once, keep "eclitunnel run" running, and open a port for each game:

    eclitunnel enroll --panel https://panel.example.com
    eclitunnel run
    eclitunnel open tcp 25565

The device token is read from --token-file, from $ECLITUNNEL_TOKEN, or from the enrollment.`

// commands is the grammar of the command line.
type commands struct {
	settings `embed:""`

	Enroll     enrollCmd     `cmd:"" help:"Enroll this machine with a panel, or install a regenerated token."`
	Run        runCmd        `cmd:"" help:"Serve this machine's public ports until stopped."`
	Open       openCmd       `cmd:"" help:"Open a public port and forward it to a local port."`
	List       listCmd       `cmd:"" help:"List this machine's public ports."`
	Close      closeCmd      `cmd:"" help:"Close a public port."`
	Pause      pauseCmd      `cmd:"" help:"Close a public port for a while and keep it."`
	Resume     resumeCmd     `cmd:"" help:"Open a paused public port again."`
	Apply      applyCmd      `cmd:"" help:"Make this machine's public ports what a file says."`
	Check      checkCmd      `cmd:"" help:"Find out whether players can join, and why not."`
	Status     statusCmd     `cmd:"" help:"Show this machine's state on the panel."`
	Watch      watchCmd      `cmd:"" help:"Show the agent that runs on this machine as it works."`
	Service    serviceCmd    `cmd:"" help:"Run the agent as a service of this machine."`
	Update     updateCmd     `cmd:"" help:"Replace this program by the one that the panel hands out."`
	Login      loginCmd      `cmd:"" help:"Log in to a panel as a person, to enroll machines without a password here."`
	Logout     logoutCmd     `cmd:"" help:"End the login at a panel."`
	Whoami     whoamiCmd     `cmd:"" help:"Show who is logged in to a panel."`
	Completion completionCmd `cmd:"" help:"Print the script that completes command lines in a shell."`
	Man        manCmd        `cmd:"" hidden:"" help:"Write the manual pages into a directory."`
	Version    versionCmd    `cmd:"" help:"Print the agent's version."`
}

// settings are the flags of every command.
type settings struct {
	Config    string `placeholder:"FILE" help:"File that holds the enrollment (default: eclitunnel/config.json in the user's configuration directory)."`
	Panel     string `placeholder:"URL" help:"URL of the panel (default: that of the enrollment)."`
	Insecure  bool   `help:"Talk to a panel on another machine over http too: others on the network can read tokens and passwords. An enrollment keeps this for its panel (default: false)."`
	SocketDir string `placeholder:"DIR" help:"Directory of the socket by which commands reach a running agent; Windows has none (default: that of the enrollment, or /var/run/eclitunnel)."`
	TokenFile string `placeholder:"FILE" help:"Read the device token from this file, - for standard input, instead of the enrollment's."`
	JSON      bool   `name:"json" help:"Print JSON, for scripts."`
}

// word is a value of a fixed list. Capital letters in it do not matter.
type word string

// UnmarshalText implements encoding.TextUnmarshaler. The list is checked afterwards.
//
//nolint:unparam // the interface wants an error
func (w *word) UnmarshalText(text []byte) error {
	*w = word(strings.ToLower(string(text)))
	return nil
}

// app holds a command's environment: its standard streams, environment variables, clock
// and program.
type app struct {
	env    func(string) (string, bool)
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	wait   func(ctx context.Context, d time.Duration) error

	through *local.Info // The running agent that sends a command's requests; nil: none.
	// program is the path of the program that an update replaces; "" is this one.
	program string
}

// run parses the command line, runs its command and returns the exit code.
func run(ctx context.Context, args []string, env func(string) (string, bool), stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{env: env, stdin: stdin, stdout: stdout, stderr: stderr, wait: wait}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	helped := false
	var grammar commands
	parser, err := kong.New(&grammar,
		kong.Name("eclitunnel"),
		kong.Description(description+"\n\nExit codes:\n\n"+exitCodeHelp()),
		kong.Writers(a.stdout, a.stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoAppDescFormat: true}),
		// --help calls this during parsing; the rest of the parsing has no effect.
		kong.Exit(func(int) { helped = true }),
		kong.Resolvers(kong.ResolverFunc(a.fromEnvironment)),
		kong.ValueFormatter(withEnvironment),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(a, &grammar.settings),
	)
	if err != nil {
		return a.fail(fmt.Errorf("build the command line: %w", err))
	}
	if len(args) > 0 && args[0] == commandline.Word {
		return a.fail(a.complete(ctx, parser, args[1:]))
	}
	if len(args) > 0 && args[0] == "help" { // The parser knows it as a flag only.
		args = append(slices.Clone(args[1:]), "--help")
	}
	parsed, err := parser.Parse(args)
	if helped {
		return 0
	}
	if err != nil {
		return a.fail(&usageError{err})
	}
	return a.fail(parsed.Run())
}

// fail prints an error and returns its exit code. For nil it returns exitOK.
func (a *app) fail(err error) int {
	if err == nil {
		return exitOK
	}
	// The lines of explain are escaped already.
	_, _ = fmt.Fprintf(a.stderr, "eclitunnel: %s\n", explain(err))
	return exitCode(err)
}

// environmentName returns the name of a flag's environment variable, such as
// ECLITUNNEL_LOG_LEVEL for --log-level. It returns "" for a flag marked env:"-", which
// applies to a single call only.
func environmentName(tag *kong.Tag, name string) string {
	if len(tag.Envs) > 0 || name == "help" {
		return ""
	}
	return "ECLITUNNEL_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func (a *app) fromEnvironment(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	name := environmentName(flag.Tag, flag.Name)
	if name == "" {
		return nil, nil
	}
	read := a.variable
	if flag.Tag.Has("lines") {
		read = a.lines
	}
	value, err := read(name)
	// In Compose files and systemd units, an empty variable means an unset one.
	if err != nil || value == "" {
		return nil, err
	}
	return value, nil
}

// variable returns an environment variable without what an editor added to the file that
// it comes from: line breaks of Windows, a byte-order mark.
func (a *app) variable(name string) (string, error) {
	value, _ := a.env(name)
	return files.Line(name, []byte(value))
}

// lines is variable for a value that may have several lines.
func (a *app) lines(name string) (string, error) {
	value, _ := a.env(name)
	text, err := files.Text(name, []byte(value))
	return string(text), err
}

// withEnvironment appends the name of a flag's environment variable to its help.
func withEnvironment(value *kong.Value) string {
	if value.Flag == nil {
		return value.Help
	}
	name := environmentName(value.Tag, value.Name)
	if name == "" {
		return value.Help
	}
	return strings.TrimSuffix(value.Help, ".") + " ($" + name + ")."
}

// printf writes a line to standard output, with the arguments escaped. There is nowhere
// to report an error.
func (a *app) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stdout, format+"\n", escapeAll(args)...)
}

// warnf writes a line to standard error, with the arguments escaped.
func (a *app) warnf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stderr, format+"\n", escapeAll(args)...)
}

// printJSON writes a value as one line of JSON.
func (a *app) printJSON(value any) error {
	text, err := json.Marshal(value)
	if err == nil {
		_, err = a.stdout.Write(append(escapeJSON(text), '\n'))
	}
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// usageError is an error in the command line or the settings.
type usageError struct{ cause error }

func (e *usageError) Error() string { return e.cause.Error() }
func (e *usageError) Unwrap() error { return e.cause }

// usageIfInvalid returns the panel's refusal of a request that was made from the command
// line as a usageError, and other errors as they are.
func usageIfInvalid(err error) error {
	if tunnel.HasCode(err, types.CodeInvalidRequest) {
		return &usageError{err}
	}
	return err
}

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// interrupted reports whether a command ended because of a signal.
func interrupted(err error) bool { return errors.Is(err, context.Canceled) }
