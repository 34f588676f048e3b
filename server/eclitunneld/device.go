package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/eclitunnel/eclitunnel/server"
)

type createDeviceCommand struct {
	Kind         string    `required:"" env:"-" enum:"client,server" placeholder:"KIND" help:"server for a tunnel server, client for the agent beside a game."`
	Name         string    `required:"" env:"-" help:"Name of the device."`
	PublicHost   string    `env:"-" placeholder:"HOST" help:"Tunnel server, required: host name or IP address at which players and agents reach it."`
	PortRange    portRange `placeholder:"FIRST-LAST" help:"Tunnel server: public ports for allocations that request no particular one (default: 20000-29999)."`
	Region       string    `env:"-" help:"Tunnel server: its location, shown to people."`
	Owner        string    `env:"-" placeholder:"EMAIL" help:"Email of the user who owns the device. A tunnel client has an owner or an organisation; a tunnel server without either serves everyone."`
	Organisation int64     `env:"-" placeholder:"ID" help:"Organisation that owns the device."`
	TokenFile    string    `env:"-" placeholder:"FILE" help:"Write the token to this new file, which only its owner can read, instead of standard output."`

	databaseFlags `embed:""`
	logFlags      `embed:""`
}

// flagNames turns the API's names of fields in an error into those of the flags.
var flagNames = strings.NewReplacer(
	"server.publicHost", "--public-host",
	"server.portRange.first", "--port-range",
	"server.portRange.last", "--port-range",
	"server.portRange", "--port-range",
	"server.region", "--region",
	"organisationId", "--organisation",
	"ownerId", "--owner",
)

// Help implements kong's interface for detailed help.
func (*createDeviceCommand) Help() string {
	return `Creates a device that is approved already, and prints its token alone on standard output. Whoever has the token can act as the device. It is not stored and cannot be shown again; the API can replace it.`
}

func (c *createDeviceCommand) Run(ctx context.Context, out console) error {
	database, err := c.database()
	if err != nil {
		return err
	}
	if c.Kind == "client" && (c.PublicHost != "" || c.Region != "" || c.PortRange != portRange{}) {
		return usageError{errors.New("--public-host, --port-range and --region are for --kind server only")}
	}
	device := server.NewDevice{
		Name: c.Name, Kind: c.Kind, OwnerEmail: c.Owner, OrganisationID: c.Organisation,
		PublicHost: c.PublicHost, Ports: server.PortRange(c.PortRange), Region: c.Region,
	}
	// Before the device exists: a token that cannot be written would be lost.
	destination, discard, err := c.destination(out)
	if err != nil {
		return err
	}
	created, err := server.CreateDevice(ctx, database, device, c.logger(out.stderr))
	if err != nil {
		discard()
		if errors.Is(err, server.ErrInvalidDevice) {
			return usageError{errors.New(flagNames.Replace(err.Error()))}
		}
		return err
	}
	where := "on standard output, this once"
	if c.TokenFile != "" {
		where = "in " + c.TokenFile
	}
	_, _ = fmt.Fprintf(out.stderr, "Created the device %s (%s, %s) in %s. Its token is %s.\n", c.Name, created.ID, c.Kind, database, where)
	if created.PublicHost != "" {
		_, _ = fmt.Fprintf(out.stderr, "Players and agents reach it at %s.\n", created.PublicHost)
	}
	if created.HostWarning != "" {
		_, _ = fmt.Fprintf(out.stderr, "warning: %s\n", created.HostWarning)
	}
	_, err = fmt.Fprintln(destination, created.Token)
	if err := errors.Join(err, destination.Close()); err != nil {
		return fmt.Errorf("write the token of the device %s, which exists now and can be deleted or given another token through the API: %w", created.ID, err)
	}
	return nil
}

// destination opens where the token goes. discard removes it unused.
func (c *createDeviceCommand) destination(out console) (w io.WriteCloser, discard func(), err error) {
	if c.TokenFile == "" {
		return keepOpen{out.stdout}, func() {}, nil
	}
	file, err := os.OpenFile(c.TokenFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, usageError{err}
	}
	return file, func() {
		_ = file.Close() // Nothing was written.
		_ = os.Remove(c.TokenFile)
	}, nil
}

// keepOpen is a writer that does not own what it writes to.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }
