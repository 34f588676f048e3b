package files

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// broadGroups are the groups that hold everybody with an account on the machine, or
// without one.
var broadGroups = []windows.WELL_KNOWN_SID_TYPE{
	windows.WinWorldSid, windows.WinAuthenticatedUserSid, windows.WinBuiltinUsersSid, windows.WinBuiltinGuestsSid,
	windows.WinInteractiveSid, windows.WinNetworkSid, windows.WinAnonymousSid,
}

// examine says who else can read or change a file, by its access list.
func examine(f *os.File) (exposure, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return exposure{}, err
	}
	everybody := exposure{who: "others can read or change", mode: "by its access list"}
	var flags uint32
	err = windows.GetVolumeInformationByHandle(windows.Handle(f.Fd()), nil, 0, nil, nil, &flags, nil, 0)
	if err == nil && flags&windows.FILE_PERSISTENT_ACLS == 0 {
		everybody.mode = "its volume has no access lists"
		return everybody, nil
	}
	everybody.fix = fmt.Sprintf(`icacls "%s" /inheritance:r /grant:r "%%USERDOMAIN%%\%%USERNAME%%:F" *S-1-5-18:F *S-1-5-32-544:F`, f.Name())
	sd, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return exposure{}, err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return exposure{}, err
	}
	if dacl == nil {
		return everybody, nil
	}
	for i := range dacl.AceCount {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, uint32(i), &ace); err != nil {
			return exposure{}, err
		}
		if grantsBroadAccess(ace) {
			return everybody, nil
		}
	}
	return exposure{}, nil
}

func grantsBroadAccess(ace *windows.ACCESS_ALLOWED_ACE) bool {
	const access = windows.FILE_READ_DATA | windows.FILE_WRITE_DATA | windows.GENERIC_READ | windows.GENERIC_WRITE | windows.GENERIC_ALL
	if ace.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE || ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 || ace.Mask&access == 0 {
		return false
	}
	sid := (*windows.SID)(unsafe.Pointer(&ace.SidStart)) // The access list ends with it.
	for _, group := range broadGroups {
		if sid.IsWellKnown(group) {
			return true
		}
	}
	return false
}
