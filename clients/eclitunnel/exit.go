package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

const (
	exitOK    = 0
	exitOther = 1
)

// Errors of this program that have their own exit code or message.
var (
	errNeedsSession    = errors.New("the panel requires a login to enroll this machine; run \"eclitunnel login\" first, or add --user EMAIL or --session-token-file FILE")
	errLogin           = errors.New("the panel does not accept this email and password")
	errLoginEnded      = errors.New("the login has expired or was revoked")
	errLoginDenied     = errors.New("the login was denied on the panel")
	errNotLoggedIn     = errors.New("nobody is logged in to the panel here")
	errDenied          = errors.New("the enrollment was denied on the panel")
	errAlreadyEnrolled = errors.New("this machine is already enrolled")
	errEnrollKey       = errors.New("the panel does not accept the API key")
	errNotStored       = errors.New("the enrollment cannot be stored")
	errNoAllocation    = errors.New("no such port")
	errNotServed       = errors.New("players cannot join yet")
	errDiffers         = errors.New("the ports are not as the file says")
	errIncomplete      = errors.New("not everything could be applied")
	errNotReachable    = errors.New("players cannot join, as said above")
	errOpenFailed      = errors.New("the port could not be opened, and is closed again")
)

// outcomes are the exit codes and their errors. The first match applies.
var outcomes = []struct {
	code    int
	meaning string
	is      func(error) bool
}{
	{exitOK, "success", func(err error) bool { return err == nil }},
	{2, "the command line or a setting is invalid", as[*usageError]},
	{3, "the panel cannot be reached, or does not know this device now", unreachable},
	{4, "the enrollment, or the code of a login, has expired", code(types.CodeEnrollmentExpired, types.CodeLoginExpired)},
	{5, "denied: not permitted, the enrollment or login was denied, the token is invalid, or the device was deleted", denied},
	{6, "this machine is not enrolled, or nobody is logged in", notHere},
	{8, "tunnels are disabled on the panel", code(types.CodeFeatureDisabled)},
	{9, "conflict: the port is taken, a quota is used up, or the machine is already enrolled", conflict},
	{10, "no tunnel server is online, or no port is free", code(types.CodeNoTunnelServer, types.CodeNoPortsAvailable)},
	{11, "the port or the device does not exist", notFound},
	{12, "players cannot join: not yet, at a port that open has created, or as check has found", func(err error) bool {
		return errors.Is(err, errNotServed) || errors.Is(err, errNotReachable)
	}},
	{13, "an agent of this device already runs on this machine", as[*agent.InstanceError]},
	{14, "the port could not be opened, and is closed again", is(errOpenFailed)},
	{15, "run --auto-update has replaced the program, and the service manager is to start it again", as[*restartError]},
	{20, "apply --dry-run: the ports are not as the file says", is(errDiffers)},
	{21, "apply: some of the ports could not be made as the file says", is(errIncomplete)},
	{exitOther, "any other error", func(error) bool { return true }},
}

// exitCode returns the exit code of an error.
func exitCode(err error) int {
	for _, o := range outcomes {
		if o.is(err) {
			return o.code
		}
	}
	return exitOther
}

// exitCodeHelp returns the list of exit codes for --help.
func exitCodeHelp() string {
	var b strings.Builder
	for _, o := range outcomes {
		fmt.Fprintf(&b, "    %2d  %s\n", o.code, o.meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// explain returns an error's message, escaped, and what the user can do about it.
func explain(err error) string {
	var stopped *channel.FinalError
	switch {
	case interrupted(err):
		return "interrupted"
	case as[*usageError](err):
		return terminal.Escape(err.Error()) + "\nRun \"eclitunnel --help\" for usage."
	case code(types.CodeEnrollmentExpired)(err):
		return "the code expired before it was approved; run \"eclitunnel enroll\" again"
	case code(types.CodeLoginExpired)(err):
		return "the code expired before it was approved; run \"eclitunnel login\" again"
	case is(errLoginEnded)(err):
		return terminal.Escape(err.Error()) + "; run \"eclitunnel login\" again"
	case is(agent.ErrNotEnrolled)(err):
		return "this machine is not enrolled; run: eclitunnel enroll --panel URL"
	case is(errAlreadyEnrolled)(err):
		return terminal.Escape(err.Error()) + "; use --force to replace the enrollment"
	case as[*agent.InstanceError](err):
		return terminal.Escape(err.Error()) + " and serves its ports\nStop that one first, or use \"eclitunnel run --standby\" to serve once it ends."
	case errors.As(err, &stopped):
		return explainFinal(stopped)
	case code(types.CodeDeviceDeleted)(err):
		return explainFinal(&channel.FinalError{Code: channel.CloseDeleted})
	case code(types.CodeUnauthorized, types.CodeTokenRevoked)(err) && !errors.Is(err, errNeedsSession) && !errors.Is(err, errLogin) && !errors.Is(err, errEnrollKey):
		return "the panel rejected the token: " + terminal.Escape(err.Error()) + "\n" + newTokenHint
	default:
		return terminal.Escape(err.Error())
	}
}

const newTokenHint = "Get a new one, as the owner of the device or an admin: eclitunnel enroll --renew --user EMAIL\n" +
	"Or have one made through the panel's API, POST /api/tunnel/devices/{id}/regenerate-token, and install it with: eclitunnel enroll --token-file FILE"

func explainFinal(e *channel.FinalError) string {
	reason := ""
	if e.Reason != "" {
		reason = " (" + terminal.Escape(e.Reason) + ")"
	}
	switch e.Code {
	case channel.CloseDeleted:
		return "this device was deleted on the panel" + reason + "; enroll again with: eclitunnel enroll --force"
	default:
		return "this device's token is no longer valid" + reason + "\n" + newTokenHint
	}
}

func as[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func code(codes ...types.ErrorCode) func(error) bool {
	return func(err error) bool {
		for _, c := range codes {
			if tunnel.HasCode(err, c) {
				return true
			}
		}
		return false
	}
}

func final(codes ...int) func(error) bool {
	return func(err error) bool {
		var e *channel.FinalError
		if !errors.As(err, &e) {
			return false
		}
		for _, c := range codes {
			if e.Code == c {
				return true
			}
		}
		return false
	}
}

func unreachable(err error) bool {
	return as[*tunnel.UnreachableError](err) || code(types.CodeUnknownDevice)(err)
}

func denied(err error) bool {
	return errors.Is(err, errDenied) || errors.Is(err, errOthersAgent) ||
		errors.Is(err, errLoginDenied) || errors.Is(err, errLoginEnded) ||
		code(types.CodeUnauthorized, types.CodeForbidden, types.CodeTokenRevoked, types.CodeDeviceDeleted)(err) ||
		final(channel.CloseTokenDead, channel.CloseDeleted)(err)
}

func conflict(err error) bool {
	return errors.Is(err, errAlreadyEnrolled) || errors.Is(err, agent.ErrEnrollmentUsed) ||
		code(types.CodeConflict, types.CodePortTaken, types.CodeQuotaExceeded, types.CodeAlreadyApproved)(err)
}

func notHere(err error) bool {
	return errors.Is(err, agent.ErrNotEnrolled) || errors.Is(err, errNotLoggedIn)
}

func notFound(err error) bool {
	return errors.Is(err, errNoAllocation) || code(types.CodeNotFound)(err)
}
