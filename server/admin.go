package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

var (
	// ErrExists means that there is already an account with the email.
	ErrExists = errors.New("an account with this email exists already")
	// ErrHasAdmin means that there is already an admin.
	ErrHasAdmin = errors.New("there is an admin already")
)

const (
	// minPassword is the minimum length of a new account's password in characters, and
	// maxPassword the maximum that a login accepts.
	minPassword, maxPassword = 12, 1024
	// maxEmail is the maximum length of an email that a login accepts, in characters.
	maxEmail = 254
)

// Check checks the email and the password.
func (a Account) Check() error {
	if a.Email == "" || a.Password == "" {
		return errors.New("admin: email and password must be given together")
	}
	if err := validate.CheckEmail(a.Email); err != nil {
		return fmt.Errorf("admin: the email %q %w", a.Email, err)
	}
	if n := utf8.RuneCountInString(a.Email); n > maxEmail {
		return fmt.Errorf("admin: the email has %d characters; at most %d can log in", n, maxEmail)
	}
	if db.IsPlaceholder(a.Email) {
		return fmt.Errorf("admin: %q ends in .invalid, where nobody has an email", a.Email)
	}
	switch n := utf8.RuneCountInString(a.Password); {
	case n < minPassword:
		return fmt.Errorf("admin: the password has %d characters; it needs at least %d", n, minPassword)
	case n > maxPassword:
		return fmt.Errorf("admin: the password has %d characters; at most %d can log in", n, maxPassword)
	case !utf8.ValidString(a.Password) || strings.ContainsRune(a.Password, 0):
		return errors.New("admin: the password is not UTF-8 text without NUL, so it could not be used to log in")
	}
	return nil
}

// CreateAdmin creates an account with the role admin, whether or not a panel is
// running, and migrates the database if necessary. It returns ErrExists if the email is
// taken.
func CreateAdmin(ctx context.Context, database Database, account Account, logger *slog.Logger) error {
	return createAdmin(ctx, database, account, logger, func(d *db.DB, hash string) error {
		_, err := d.CreateUser(ctx, account.Email, hash, string(types.RoleAdmin))
		return err
	})
}

// CreateFirstAdmin is CreateAdmin for a database without an admin. If it has one,
// CreateFirstAdmin creates nothing and returns ErrHasAdmin.
func CreateFirstAdmin(ctx context.Context, database Database, account Account, logger *slog.Logger) error {
	return createAdmin(ctx, database, account, logger, func(d *db.DB, hash string) error {
		created, err := d.CreateFirstAdmin(ctx, account.Email, hash)
		if err == nil && !created {
			return ErrHasAdmin
		}
		return err
	})
}

func createAdmin(ctx context.Context, database Database, account Account, logger *slog.Logger, create func(d *db.DB, hash string) error) (err error) {
	if err := account.Check(); err != nil {
		return err
	}
	d, closeDB, err := open(ctx, database, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeDB()) }()
	hash, err := auth.HashPassword(account.Password)
	if err != nil {
		return err
	}
	err = create(d, hash)
	if errors.Is(err, db.ErrConflict) {
		return ErrExists
	}
	return err
}

// firstAdmin creates the account if there is no admin yet.
func firstAdmin(ctx context.Context, d *db.DB, account Account, logger *slog.Logger) error {
	exists, err := d.HasAdmin(ctx)
	if err != nil || exists {
		return err
	}
	if account == (Account{}) {
		logger.WarnContext(ctx, "there is no admin yet, so nobody can log in; create one with: eclitunneld admin create")
		return nil
	}
	hash, err := auth.HashPassword(account.Password)
	if err != nil {
		return err
	}
	// Several replicas may start at once; the database lets one create it.
	created, err := d.CreateFirstAdmin(ctx, account.Email, hash)
	if err != nil {
		return fmt.Errorf("create the first admin: %w", err)
	}
	if created {
		logger.InfoContext(ctx, "first admin created", slog.String("email", account.Email))
	}
	return nil
}
