//go:build unix

package cluster

import (
	"os/exec"
	"syscall"
)

func separateGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
