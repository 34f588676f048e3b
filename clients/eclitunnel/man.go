package main

import (
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/eclitunnel/eclitunnel/internal/commandline"
)

type manCmd struct {
	Dir string `arg:"" placeholder:"DIR" help:"Directory for the pages."`
}

// Run implements the command.
func (cmd *manCmd) Run(a *app, k *kong.Kong) error {
	epoch, _ := a.env("SOURCE_DATE_EPOCH")
	date, err := commandline.PageDate(epoch)
	if err != nil {
		return &usageError{err}
	}
	k.Model.Help = description // The exit codes have a section of their own.
	manual := commandline.Manual{
		Version: version, Date: date, ExitStatus: exitCodeHelp(),
		Environment: func(flag *kong.Flag) string { return environmentName(flag.Tag, flag.Name) },
	}
	if err := manual.Write(k.Model, cmd.Dir); err != nil {
		return fmt.Errorf("write the manual pages: %w", err)
	}
	return nil
}
