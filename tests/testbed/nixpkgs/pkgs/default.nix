# SPDX-License-Identifier: GPL-3.0-or-later
# Packages without programs: names, versions, sizes and references as a closure has them. They are built by the
# machine's own /bin/sh, whatever platform they are for.
{
  lib,
  release,
  system,
}:
let
  mkDerivation =
    name: env:
    derivation (
      {
        inherit name;
        system = release.builder;
        platform = system;
        builder = "/bin/sh";
        PATH = "/usr/bin:/bin";
        preferLocalBuild = true;
      }
      // env
    );

  runCommand =
    name: env: script:
    mkDerivation name (
      env
      // {
        args = [
          "-c"
          "set -eu; umask 022; . \"$scriptPath\""
        ];
        inherit script;
        passAsFile = [ "script" ] ++ env.passAsFile or [ ];
      }
    );

  writeFile =
    { name, mode }:
    text:
    runCommand name {
      inherit text;
      passAsFile = [ "text" ];
    } "cp \"$textPath\" \"$out\"; chmod ${mode} \"$out\"";

  package =
    {
      pname,
      inputs ? [ ],
      kib ? 4,
      program ? null,
      build ? "",
    }:
    let
      version = release.packages.${pname};
      drv = runCommand "${pname}-${version}" { inherit inputs; } ''
        ${lib.optionalString (builtins.elem pname release.broken) ''
          echo "${pname}: 1 of 318 tests failed" >&2
          exit 1
        ''}
        ${lib.optionalString (release.slow ? ${pname}) ''
          for second in $(seq ${toString release.slow.${pname}}); do
            echo "[$second/${toString release.slow.${pname}}] compiling ${pname}"
            sleep 1
          done
        ''}
        mkdir -p "$out/lib" "$out/share/doc"
        printf '%s %s for %s\n' ${pname} ${version} "$platform" > "$out/share/doc/version"
        head -c ${toString (kib * 1024)} /dev/zero | tr '\0' '${builtins.substring 0 1 pname}' > "$out/lib/lib${pname}.so"
        for input in $inputs; do
          printf 'NEEDED %s/lib\n' "$input"
        done >> "$out/lib/lib${pname}.so"
        ${lib.optionalString (program != null) ''
          mkdir -p "$out/bin"
          printf '%s\n' '#!/bin/sh' ${lib.escapeShellArg program} > "$out/bin/${pname}"
          chmod 755 "$out/bin/${pname}"
        ''}
        ${build}
      '';
    in
    drv
    // {
      inherit pname version;
      meta.mainProgram = pname;
    };

  kernel =
    pname:
    package {
      inherit pname;
      kib = 16;
      build = ''
        head -c 1048576 /dev/zero | tr '\0' k > "$out/${if system == "aarch64-linux" then "Image" else "bzImage"}"
        printf '%s %s\n' ${pname} ${release.packages.${pname}} >> "$out/${
          if system == "aarch64-linux" then "Image" else "bzImage"
        }"
        mkdir -p "$out/lib/modules/${release.packages.${pname}}/kernel"
        echo overlay > "$out/lib/modules/${release.packages.${pname}}/kernel/modules.builtin"
      '';
    }
    // {
      kernelFile = if system == "aarch64-linux" then "Image" else "bzImage";
      modDirVersion = release.packages.${pname};
    };

  self = {
    inherit lib runCommand;
    inherit (self.stdenv.hostPlatform) system;
    stdenv.hostPlatform = {
      inherit system;
      isx86_64 = system == "x86_64-linux";
      isAarch64 = system == "aarch64-linux";
      isLinux = true;
    };
    writeText = name: writeFile {
      inherit name;
      mode = "444";
    };
    writeShellScript =
      name: text:
      writeFile {
        inherit name;
        mode = "555";
      } "#!/bin/sh\n${text}";
    writeShellScriptBin =
      name: text:
      runCommand name {
        inherit text;
        passAsFile = [ "text" ];
      } ''
        mkdir -p "$out/bin"
        { echo '#!/bin/sh'; cat "$textPath"; } > "$out/bin/${name}"
        chmod 555 "$out/bin/${name}"
      ''
      // {
        meta.mainProgram = name;
      };
    linkFarm =
      name: entries:
      runCommand name { } (
        ''mkdir -p "$out"; ''
        + lib.concatMapStrings (e: ''
          ln -s ${lib.escapeShellArg e.path} "$out"/${lib.escapeShellArg e.name}
        '') entries
      );
    buildEnv =
      { name, paths }:
      runCommand name { inherit paths; } ''
        mkdir -p "$out/bin" "$out/share"
        for path in $paths; do
          [ ! -d "$path/bin" ] || ln -sf "$path"/bin/* "$out/bin/"
          echo "$path" >> "$out/share/packages"
        done
      '';

    glibc = package {
      pname = "glibc";
      kib = 256;
    };
    zlib = package {
      pname = "zlib";
      inputs = [ self.glibc ];
    };
    openssl = package {
      pname = "openssl";
      kib = 64;
      inputs = [ self.glibc ];
    };
    bash = package {
      pname = "bash";
      kib = 16;
      inputs = [ self.glibc ];
    };
    coreutils = package {
      pname = "coreutils";
      kib = 16;
      inputs = [ self.glibc ];
    };
    kmod = package {
      pname = "kmod";
      inputs = [
        self.glibc
        self.zlib
      ];
    };
    util-linux = package {
      pname = "util-linux";
      kib = 16;
      inputs = [
        self.glibc
        self.zlib
      ];
    };
    tzdata = package { pname = "tzdata"; };
    cacert = package { pname = "cacert"; };
    systemd = package {
      pname = "systemd";
      kib = 128;
      inputs = [
        self.glibc
        self.kmod
        self.util-linux
      ];
      build = ''
        mkdir -p "$out/lib/systemd"
        ln -s /lib/systemd/systemd "$out/lib/systemd/systemd"
      '';
    };
    dbus = package {
      pname = "dbus";
      inputs = [
        self.glibc
        self.systemd
      ];
    };
    dbus-broker = package {
      pname = "dbus-broker";
      inputs = [
        self.glibc
        self.systemd
      ];
    };
    openssh = package {
      pname = "openssh";
      kib = 32;
      inputs = [
        self.openssl
        self.zlib
      ];
    };
    nix = package {
      pname = "nix";
      kib = 64;
      inputs = [
        self.bash
        self.openssl
      ];
    };
    curl = package {
      pname = "curl";
      inputs = [ self.openssl ];
    };
    nginx = package {
      pname = "nginx";
      kib = 32;
      inputs = [
        self.openssl
        self.zlib
      ];
      program = ''exec sleep infinity'';
    };
    hello = package {
      pname = "hello";
      inputs = [ self.glibc ];
      program = ''echo "Hello, world!"'';
    };
    postgresql = package {
      pname = "postgresql";
      kib = 64;
      inputs = [
        self.openssl
        self.zlib
      ];
      program = ''exec sleep infinity'';
    };
    linux-firmware = package {
      pname = "linux-firmware";
      kib = 64;
    };
    linux = kernel "linux";
    linux-lts = kernel "linux-lts";
    linuxPackages = {
      kernel = self.linux-lts;
    };
    linuxPackages_latest = {
      kernel = self.linux;
    };
    formats.json = { }: {
      generate = name: value: self.writeText name (builtins.toJSON value);
    };
  };
in
self
