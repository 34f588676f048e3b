package main

import (
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/eclitunnel/eclitunnel/internal/commandline"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish,powershell" help:"bash, zsh, fish or powershell."`
}

func (c *completionCommand) Run(out console) error {
	return commandline.Script(out.stdout, c.Shell, "eclitunneld")
}

type manCommand struct {
	Dir string `arg:"" placeholder:"DIR" help:"Directory for the pages."`
}

func (c *manCommand) Run(k *kong.Kong) error {
	date, err := commandline.PageDate(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return usageError{err}
	}
	manual := commandline.Manual{Version: version, Date: date, Environment: func(flag *kong.Flag) string {
		if len(flag.Envs) == 0 {
			return ""
		}
		return flag.Envs[0]
	}}
	if err := manual.Write(k.Model, c.Dir); err != nil {
		return fmt.Errorf("write the manual pages: %w", err)
	}
	return nil
}
