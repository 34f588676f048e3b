package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/term"

	"github.com/eclitunnel/eclitunnel/internal/prompt"
	"github.com/eclitunnel/eclitunnel/server"
)

type migrateCommand struct {
	databaseFlags `embed:""`
	logFlags      `embed:""`
}

func (c *migrateCommand) Run(ctx context.Context, out console) error {
	database, err := c.database()
	if err != nil {
		return err
	}
	if err := server.Migrate(ctx, database, c.logger(out.stderr)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.stdout, "The schema is that of this version, in %s.\n", database)
	return err
}

type createAdminCommand struct {
	Email        string `required:"" env:"ECLITUNNEL_ADMIN_EMAIL" placeholder:"EMAIL" help:"The admin's email."`
	PasswordFile string `env:"-" placeholder:"FILE" help:"Read the password from this file, - for standard input. Without it the terminal prompts for it; only the very first admin gets the one in $$ECLITUNNEL_ADMIN_PASSWORD or in the file $$ECLITUNNEL_ADMIN_PASSWORD_FILE."`

	LocalAccounts bool `default:"true" negatable:"" help:"Whether people log in by a password, as for serve; without it the command warns (default: true)."`

	databaseFlags `embed:""`
	logFlags      `embed:""`
}

func (c *createAdminCommand) Run(ctx context.Context, out console) error {
	database, err := c.database()
	if err != nil {
		return err
	}
	if !c.LocalAccounts {
		_, _ = fmt.Fprintln(out.stderr, "Local accounts are switched off: this admin can log in once serve runs with --local-accounts.")
	}
	if c.PasswordFile == "" {
		created, err := c.createFirst(ctx, out, database)
		if created || err != nil {
			return err
		}
	}
	password, err := c.password(ctx, out)
	if err != nil {
		return err
	}
	account := server.Account{Email: c.Email, Password: password}
	if err := account.Check(); err != nil {
		return usageError{err}
	}
	if err := server.CreateAdmin(ctx, database, account, c.logger(out.stderr)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.stdout, "Created the admin %s in %s.\n", c.Email, database)
	return err
}

// createFirst creates the admin with the password in the environment, if there is one
// and no admin yet. The environment may still be the one in which the first admin was
// created; a second one must not get the same password unnoticed.
func (c *createAdminCommand) createFirst(ctx context.Context, out console, database server.Database) (created bool, err error) {
	password, source, err := inherited("ADMIN_PASSWORD")
	if err != nil || password == "" {
		return false, err
	}
	account := server.Account{Email: c.Email, Password: password}
	if err := account.Check(); err != nil {
		return false, usageError{fmt.Errorf("%s: %w", source, err)}
	}
	err = server.CreateFirstAdmin(ctx, database, account, c.logger(out.stderr))
	switch {
	case err == nil:
		_, err = fmt.Fprintf(out.stdout, "Created the admin %s in %s, with the password from %s.\n", c.Email, database, source)
		return true, err
	case !errors.Is(err, server.ErrHasAdmin):
		return false, err
	}
	_, _ = fmt.Fprintf(out.stderr, "There is an admin already: the password from %s is not used for another one.\n", source)
	return false, nil
}

// password reads the password from the file, and otherwise prompts for it.
func (c *createAdminCommand) password(ctx context.Context, out console) (string, error) {
	switch c.PasswordFile {
	case "":
	case "-":
		return firstLine(out.stdin)
	default:
		return secretFile(c.PasswordFile)
	}
	terminal, ok := out.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return "", usageError{errors.New("no password: set --password-file, or run in a terminal")}
	}
	first, err := prompt.Secret(ctx, terminal, out.stderr, "Password: ")
	if err != nil {
		return "", err
	}
	again, err := prompt.Secret(ctx, terminal, out.stderr, "Password again: ")
	if err != nil {
		return "", err
	}
	if first != again {
		return "", errors.New("the two passwords differ")
	}
	return first, nil
}

func firstLine(r io.Reader) (string, error) {
	first, err := bufio.NewReader(r).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return line("standard input", first)
}

type versionCommand struct{}

func (versionCommand) Run(out console) error {
	_, err := fmt.Fprintf(out.stdout, "eclitunneld %s (%s, %s)\n", version, commit, runtime.Version())
	return err
}
