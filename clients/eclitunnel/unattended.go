package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/files"
)

const (
	enrollKeyVariable = "ECLITUNNEL_ENROLL_KEY"
	// pendingSuffix is what the file of an enrollment under way is called, after the
	// config file.
	pendingSuffix = ".pending"
	// firstRetry and lastRetry bound the wait for a panel that cannot be reached, which may
	// be starting beside this program.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// unattended are the flags with which an agent enrolls itself, where nobody reads a code.
type unattended struct {
	EnrollKeyFile string `placeholder:"FILE" help:"If this machine is not enrolled, create a device for it with the API key in this file, which needs the scope enrollment, and keep the enrollment; - for standard input; also from $$ECLITUNNEL_ENROLL_KEY."`
	Name          string `help:"Name of the device that --enroll-key-file creates (default: the host name)."`
}

// pendingDevice is what makes two attempts at an enrollment, also by two processes, one
// device: the panel answers the second as it did the first.
type pendingDevice struct {
	IdempotencyKey string `json:"idempotencyKey"`
	Name           string `json:"name"`
}

// device returns the identity and a client with its token, as settings.device does.
// Without an enrollment it creates the device with the key, if there is one.
func (u *unattended) device(ctx context.Context, a *app, s *settings, log *slog.Logger) (agent.Config, *tunnel.Client, error) {
	key, err := a.secret(u.EnrollKeyFile, enrollKeyVariable)
	if err != nil {
		return agent.Config{}, nil, err
	}
	token, err := s.deviceToken(a)
	if err != nil || key == "" || token != "" {
		return s.ownDevice(a)
	}
	path, err := s.path()
	if err != nil {
		return agent.Config{}, nil, err
	}
	if _, err := agent.LoadConfig(path); !errors.Is(err, agent.ErrNotEnrolled) {
		return s.ownDevice(a)
	}
	if err := u.enroll(ctx, a, s, key, path, log); err != nil {
		return agent.Config{}, nil, err
	}
	return s.ownDevice(a)
}

// enroll creates the device and stores it.
func (u *unattended) enroll(ctx context.Context, a *app, s *settings, key, path string, log *slog.Logger) error {
	from := source(u.EnrollKeyFile, enrollKeyVariable)
	switch {
	case !strings.HasPrefix(key, apiKeyPrefix):
		return usagef("%s is not an API key of the panel, which begins with %s", from, apiKeyPrefix)
	case s.Panel == "":
		return usagef("the panel's address is missing; set it with --panel or $ECLITUNNEL_PANEL")
	}
	// If the file could not be written later, each start would make another device.
	if err := agent.CheckConfigPath(path); err != nil {
		return err
	}
	client, err := a.clientWith(s.Panel, s.Insecure, func() string { return key })
	if err != nil {
		return err
	}
	defer client.Close()
	pending, err := u.pending(path + pendingSuffix)
	if err != nil {
		return err
	}
	device, token, err := u.create(ctx, a, client, pending, log)
	if err != nil {
		if code(types.CodeIdempotencyAnswerLost, types.CodeIdempotencyKeyReused)(err) {
			_ = os.Remove(path + pendingSuffix) // The next start makes a new attempt.
		}
		return refusedKey(err, from)
	}
	c := agent.Config{
		PanelURL: client.PanelURL(), DeviceID: device.ID, Name: device.Name, Token: token,
		Insecure: tunnel.IsInsecure(client.PanelURL()),
	}
	if err := c.Save(path); err != nil {
		return fmt.Errorf("%w: %w", errNotStored, err)
	}
	_ = os.Remove(path + pendingSuffix) // It holds no secret, and is of no use any more.
	if exposed := files.Exposure(path); exposed != nil {
		a.warnf("warning: %v", exposed)
	}
	if !s.JSON {
		a.printf("%s  enrolled as %s; the enrollment is stored in %s", time.Now().Format(time.TimeOnly), deviceLabel(c.Name, c.DeviceID), path)
	}
	log.InfoContext(ctx, "enrolled", slog.String("deviceId", c.DeviceID.String()), slog.String("name", c.Name), slog.String("panel", c.PanelURL))
	return nil
}

// create asks the panel for the device until it answers. A container may start before the
// panel does.
func (*unattended) create(ctx context.Context, a *app, client *tunnel.Client, p pendingDevice, log *slog.Logger) (types.Device, string, error) {
	waits := backoff.Exponential{Min: firstRetry, Max: lastRetry}
	for away := false; ; away = true {
		device, token, err := client.CreateDevice(ctx, types.DeviceCreate{Name: p.Name}, tunnel.IdempotencyKey(p.IdempotencyKey))
		if err == nil || !panelAway(err) {
			return device, token, err
		}
		if !away {
			log.WarnContext(ctx, "the panel cannot be reached to enroll; still trying", slog.Any("error", err))
		}
		if err := a.wait(ctx, waits.Next()); err != nil {
			return types.Device{}, "", err
		}
	}
}

// panelAway reports whether the panel may answer a request later that has failed.
func panelAway(err error) bool {
	return as[*tunnel.UnreachableError](err) ||
		code(types.CodeUnavailable, types.CodeRateLimited, types.CodeInternalError, types.CodeIdempotencyInProgress)(err)
}

// pending returns the attempt that is under way, or begins one. Of two processes that
// begin one at the same time both get the same.
func (u *unattended) pending(path string) (pendingDevice, error) {
	p := pendingDevice{IdempotencyKey: uuid.NewString(), Name: u.Name}
	if p.Name == "" {
		var err error
		if p.Name, err = os.Hostname(); err != nil {
			return p, usagef("cannot get the host name: %w; set a name with --name", err)
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		return p, fmt.Errorf("begin an enrollment: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*")
	if err != nil {
		return p, fmt.Errorf("begin an enrollment: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return p, fmt.Errorf("begin an enrollment: %w", err)
	}
	// A link, unlike a rename, fails if there is one already.
	if err = os.Link(file.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		err = files.Write(path, text) // The file system has no links: one process at a time.
	}
	if err == nil {
		return p, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return p, fmt.Errorf("begin an enrollment: %w", err)
	}
	begun, err := files.ReadData(path)
	if err == nil {
		err = json.Unmarshal(begun, &p)
	}
	if err != nil {
		return p, fmt.Errorf("go on with the enrollment in %s: %w", path, err)
	}
	return p, nil
}

// refusedKey explains a refusal of the API key, which the help of other commands would
// take for the device's token.
func refusedKey(err error, from string) error {
	switch {
	case tunnel.HasCode(err, types.CodeUnauthorized):
		return fmt.Errorf("%w in %s: %w", errEnrollKey, from, err)
	case tunnel.HasCode(err, types.CodeForbidden):
		return fmt.Errorf("%w in %s: it needs the scope enrollment, and either an admin's key or the setting enrollment.ownersApprove: %w", errEnrollKey, from, err)
	default:
		return usageIfInvalid(err)
	}
}
