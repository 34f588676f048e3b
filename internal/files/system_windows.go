package files

import (
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// setAccess keeps everybody but this user, the system and administrators from a new file.
// Without it the file inherits the readers of its directory, which outside of a user's
// profile are all users.
func setAccess(f *os.File, _ fs.FileInfo) error {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return err
	}
	sd, err := windows.SecurityDescriptorFromString("D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;" + user.User.Sid.String() + ")")
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	// Where the volume has no access lists, this fails.
	_ = windows.SetNamedSecurityInfo(f.Name(), windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	return nil
}

// syncDir does nothing: Windows makes a rename durable by itself, and refuses to sync a
// directory.
func syncDir(string) error { return nil }
