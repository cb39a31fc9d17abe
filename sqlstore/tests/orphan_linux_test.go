package tests

import "syscall"

// endWithParent has a server killed when the test's process ends in whatever
// way, at a timeout for one.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
