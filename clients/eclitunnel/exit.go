package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

const (
	exitOK    = 0
	exitOther = 1
)

// Errors of this program's own that scripts can tell apart.
var (
	errNeedsSession    = errors.New("the panel does not let this machine enroll; give an admin's or your own session with --session-token-file")
	errDenied          = errors.New("the enrollment was denied: an admin has deleted it")
	errAlreadyEnrolled = errors.New("this machine is enrolled already")
	errNoAllocation    = errors.New("this machine has no such port")
	errNotServed       = errors.New("players cannot come through yet")
)

// outcomes are the exit codes and the errors that lead to each; the first that
// matches counts.
var outcomes = []struct {
	code    int
	meaning string
	is      func(error) bool
}{
	{exitOK, "done", func(err error) bool { return err == nil }},
	{2, "the command line cannot be carried out", as[*usageError]},
	{3, "the panel cannot be reached", as[*tunnel.UnreachableError]},
	{4, "the enrollment's code has expired", code(types.CodeEnrollmentExpired)},
	{5, "denied: not allowed, the token is dead, or the device was deleted", denied},
	{6, "this machine is not enrolled", is(agent.ErrNotEnrolled)},
	{7, "another agent of this device took over", final(channel.CloseTakenOver)},
	{8, "tunnels are switched off on the panel", code(types.CodeFeatureDisabled)},
	{9, "conflict: the port is taken, or the machine is enrolled already", conflict},
	{10, "no tunnel server is online, or no port is free", code(types.CodeNoTunnelServer, types.CodeNoPortsAvailable)},
	{11, "there is no such port or device", notFound},
	{12, "the port is open, but players cannot come through it yet", is(errNotServed)},
	{exitOther, "anything else", func(error) bool { return true }},
}

// exitCode is the exit code of an error.
func exitCode(err error) int {
	for _, o := range outcomes {
		if o.is(err) {
			return o.code
		}
	}
	return exitOther
}

// exitCodeHelp lists the exit codes for people.
func exitCodeHelp() string {
	var b strings.Builder
	for _, o := range outcomes {
		fmt.Fprintf(&b, "    %2d  %s\n", o.code, o.meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// explain is an error's message with what a person can do about it.
func explain(err error) string {
	var stopped *channel.FinalError
	switch {
	case interrupted(err):
		return "interrupted"
	case as[*usageError](err):
		return err.Error() + "\nRun \"eclitunnel --help\" for how to use it."
	case code(types.CodeEnrollmentExpired)(err):
		return "the code has expired before it was approved; run \"eclitunnel enroll\" again"
	case is(agent.ErrNotEnrolled)(err):
		return "this machine is not enrolled; run: eclitunnel enroll --panel URL"
	case is(errAlreadyEnrolled)(err):
		return err.Error() + "; --force replaces the enrollment"
	case errors.As(err, &stopped):
		return explainFinal(stopped)
	case code(types.CodeUnauthorized)(err) && !errors.Is(err, errNeedsSession):
		return "the panel does not accept the token: " + err.Error() + "\n" + newTokenHint
	default:
		return err.Error()
	}
}

const newTokenHint = "Have a new token made on the panel and install it with: eclitunnel enroll --token-file FILE"

func explainFinal(e *channel.FinalError) string {
	reason := ""
	if e.Reason != "" {
		reason = " (" + e.Reason + ")"
	}
	switch e.Code {
	case channel.CloseDeleted:
		return "this device was deleted on the panel" + reason + "; enroll again with: eclitunnel enroll --force"
	case channel.CloseTakenOver:
		return "another agent of this device has connected and took over" + reason
	default:
		return "this device's token is dead" + reason + "\n" + newTokenHint
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

func denied(err error) bool {
	return errors.Is(err, errDenied) ||
		code(types.CodeUnauthorized, types.CodeForbidden)(err) ||
		final(channel.CloseTokenDead, channel.CloseDeleted)(err)
}

func conflict(err error) bool {
	return errors.Is(err, errAlreadyEnrolled) || errors.Is(err, agent.ErrEnrollmentUsed) ||
		code(types.CodeConflict, types.CodePortTaken, types.CodeAlreadyApproved)(err)
}

func notFound(err error) bool {
	return errors.Is(err, errNoAllocation) || code(types.CodeNotFound)(err)
}
