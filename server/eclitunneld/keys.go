package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/terminal"
	"github.com/eclitunnel/eclitunnel/server"
)

type listKeysCommand struct {
	databaseFlags `embed:""`
	logFlags      `embed:""`
}

func (c *listKeysCommand) Run(ctx context.Context, out console) error {
	database, err := c.database()
	if err != nil {
		return err
	}
	logger := c.logger(out.stderr)
	keys, err := server.Keys(ctx, database, logger)
	if err != nil {
		return err
	}
	// Not among the keys, which scripts read.
	logger.InfoContext(ctx, "listing signing keys", slog.Any("database", database.String()))
	table := tabwriter.NewWriter(out.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tSTATE\tCREATED\tSIGNS FROM")
	for _, key := range keys {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", key.ID, key.State,
			key.CreatedAt.Format(time.RFC3339), key.SignsFrom.Format(time.RFC3339))
	}
	return table.Flush()
}

type revokeKeysCommand struct {
	Keys []string `arg:"" optional:"" name:"key" help:"Ids of the leaked keys, as shown by 'keys list'."`
	All  bool     `env:"-" help:"Revoke all keys, for example after a backup of the database has leaked."`

	databaseFlags `embed:""`
	logFlags      `embed:""`
}

func (c *revokeKeysCommand) Run(ctx context.Context, out console) error {
	if c.All == (len(c.Keys) > 0) {
		return usageError{errors.New("name the keys to revoke, or give --all")}
	}
	database, err := c.database()
	if err != nil {
		return err
	}
	logger := c.logger(out.stderr)
	if c.All {
		keys, err := server.Keys(ctx, database, logger)
		if err != nil {
			return err
		}
		for _, key := range keys {
			c.Keys = append(c.Keys, key.ID)
		}
		if len(keys) == 0 {
			return fmt.Errorf("there are no signing keys in %s", database)
		}
	}
	revocation, err := server.RevokeKeys(ctx, database, c.Keys, logger)
	if err != nil {
		return err
	}
	return report(out.stdout, len(c.Keys), database, revocation)
}

// report says what is to be done now.
func report(w io.Writer, keys int, database server.Database, revocation server.Revocation) error {
	fmt.Fprintf(w, "Revoked %d signing keys in %s. People have to log in again.\n", keys, database)
	if len(revocation.Devices) > 0 {
		fmt.Fprintln(w, "These devices need new tokens:")
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, device := range revocation.Devices {
			fmt.Fprintf(table, "%s\t%s\t%s\n", device.ID, device.Kind, terminal.Escape(device.Name))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if revocation.Unknown > 0 {
		fmt.Fprintf(w, "%d devices have not connected since they were given a token; if one of these keys signed it, they need another.\n", revocation.Unknown)
	}
	return nil
}
