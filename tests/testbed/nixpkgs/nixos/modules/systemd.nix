# SPDX-License-Identifier: GPL-3.0-or-later
# systemd.services, sockets, timers, targets, and drop-ins for the units that the base system brings.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.systemd;
  storeName = builtins.replaceStrings [ "@" "\\" ":" ] [ "-" "-" "-" ];
  listOfStr = types.listOf types.str;
  settings = types.attrsOf (
    types.oneOf [
      types.bool
      types.int
      types.str
      types.path
      types.package
      (types.listOf types.anything)
    ]
  );
  option =
    type: default:
    mkOption {
      inherit type default;
    };
  script = option types.lines "";

  common = {
    enable = option types.bool true;
    description = option types.str "";
    after = option listOfStr [ ];
    before = option listOfStr [ ];
    bindsTo = option listOfStr [ ];
    conflicts = option listOfStr [ ];
    partOf = option listOfStr [ ];
    requiredBy = option listOfStr [ ];
    requires = option listOfStr [ ];
    wantedBy = option listOfStr [ ];
    wants = option listOfStr [ ];
    unitConfig = option settings { };
    restartTriggers = option (types.listOf types.anything) [ ];
    reloadTriggers = option (types.listOf types.anything) [ ];
    overrideStrategy = option (types.enum [
      "asDropinIfExists"
      "asDropin"
    ]) "asDropinIfExists";
  };
  service = types.submodule {
    options = common // {
      environment = option (types.attrsOf (types.nullOr types.anything)) { };
      path = option (types.listOf types.package) [ ];
      script = script;
      preStart = script;
      postStart = script;
      reload = script;
      preStop = script;
      postStop = script;
      scriptArgs = option types.str "";
      serviceConfig = option settings { };
      startAt = option (types.either types.str listOfStr) [ ];
      restartIfChanged = option types.bool true;
      reloadIfChanged = option types.bool false;
      stopIfChanged = option types.bool true;
    };
  };
  plain =
    section:
    types.submodule {
      options = common // {
        ${section} = option settings { };
        listenStreams = option listOfStr [ ];
      };
    };

  scalar =
    value:
    if value == true then
      "true"
    else if value == false then
      "false"
    else
      toString value;
  lines = set: lib.concatMapStrings (key: lib.concatMapStrings (v: "${key}=${scalar v}\n") (lib.toList set.${key})) (builtins.attrNames set);
  words = key: list: lib.optionalAttrs (list != [ ]) { ${key} = builtins.concatStringsSep " " list; };
  trigger = value: if builtins.isAttrs value && !(value ? outPath) then builtins.toJSON value else toString value;

  unitSection =
    unit:
    "[Unit]\n"
    + lines (
      lib.optionalAttrs (unit.description != "") { Description = unit.description; }
      // words "After" unit.after
      // words "Before" unit.before
      // words "BindsTo" unit.bindsTo
      // words "Conflicts" unit.conflicts
      // words "PartOf" unit.partOf
      // words "Requires" unit.requires
      // words "Wants" unit.wants
      // words "X-Reload-Triggers" (map trigger unit.reloadTriggers)
      // words "X-Restart-Triggers" (map trigger unit.restartTriggers)
      // unit.unitConfig
    );

  command =
    name: kind: text:
    toString (pkgs.writeShellScript "unit-script-${storeName name}-${kind}" "set -e\n${text}\n");
  serviceSection =
    name: unit:
    let
      exec = key: kind: text: lib.optionalAttrs (text != "") { ${key} = command name kind text; };
      start = lib.optionalAttrs (unit.script != "") {
        ExecStart = command name "start" unit.script + lib.optionalString (unit.scriptArgs != "") " ${unit.scriptArgs}";
      };
      paths = map (p: "${p}/bin") (unit.path ++ [ pkgs.coreutils ]);
      environment = {
        PATH = builtins.concatStringsSep ":" (paths ++ [ "/usr/sbin:/usr/bin:/sbin:/bin" ]);
      }
      // unit.environment;
      assign = key: value: "Environment=\"${key}=${scalar value}\"\n";
      # A drop-in for a unit of the base must not give it another PATH.
      withEnvironment = unit.overrideStrategy != "asDropin";
    in
    "[Service]\n"
    + lib.optionalString withEnvironment (
      lib.concatMapStrings (key: lib.optionalString (environment.${key} != null) (assign key environment.${key})) (
        builtins.attrNames environment
      )
    )
    + lib.optionalString unit.reloadIfChanged "X-ReloadIfChanged=true\n"
    + lib.optionalString (!unit.reloadIfChanged && !unit.restartIfChanged) "X-RestartIfChanged=false\n"
    + lib.optionalString (!unit.stopIfChanged) "X-StopIfChanged=false\n"
    + lines (
      start
      // exec "ExecStartPre" "pre-start" unit.preStart
      // exec "ExecStartPost" "post-start" unit.postStart
      // exec "ExecReload" "reload" unit.reload
      // exec "ExecStop" "pre-stop" unit.preStop
      // exec "ExecStopPost" "post-stop" unit.postStop
      // unit.serviceConfig
    );

  textOf = {
    service = name: unit: unitSection unit + "\n" + serviceSection name unit;
    socket = _: unit: unitSection unit + "\n[Socket]\n" + lines ({ ListenStream = unit.listenStreams; } // unit.socketConfig);
    timer = _: unit: unitSection unit + "\n[Timer]\n" + lines unit.timerConfig;
    path = _: unit: unitSection unit + "\n[Path]\n" + lines unit.pathConfig;
    target = _: unitSection;
  };
  unitsOf =
    kind: set:
    lib.mapAttrs' (
      name: unit:
      lib.nameValuePair "${name}.${kind}" {
        inherit (unit)
          enable
          wantedBy
          requiredBy
          overrideStrategy
          ;
        text = textOf.${kind} name unit;
      }
    ) set;
  fileOf = name: unit: if unit.overrideStrategy == "asDropin" then "${name}.d/nixos.conf" else name;
  install =
    name: unit:
    let
      pull =
        kind: target: ''
          mkdir -p "$out/${target}.${kind}"
          ln -s ../${lib.escapeShellArg name} "$out/${target}.${kind}"/${lib.escapeShellArg name}
        '';
      file = lib.escapeShellArg (fileOf name unit);
    in
    if unit.enable then
      ''
        mkdir -p "$(dirname "$out"/${file})"
        cat > "$out"/${file} << 'END OF UNIT'
        ${lib.removeSuffix "\n" unit.text}
        END OF UNIT
      ''
      + lib.concatMapStrings (pull "wants") unit.wantedBy
      + lib.concatMapStrings (pull "requires") unit.requiredBy
    else
      ''
        ln -s /dev/null "$out"/${file}
      '';
  units = pkgs.runCommand "system-units" { } (
    ''
      mkdir -p "$out"
    ''
    + lib.concatMapAttrsStringsSep "" install cfg.units
  );
  timed = lib.filterAttrs (_: unit: unit.startAt != [ ]) cfg.services;
in
{
  options.systemd = {
    units = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            inherit (common)
              enable
              wantedBy
              requiredBy
              overrideStrategy
              ;
            text = option types.lines "";
          };
        }
      );
      default = { };
    };
    services = option (types.attrsOf service) { };
    sockets = option (types.attrsOf (plain "socketConfig")) { };
    timers = option (types.attrsOf (plain "timerConfig")) { };
    paths = option (types.attrsOf (plain "pathConfig")) { };
    targets = option (types.attrsOf (plain "targetConfig")) { };
    package = option types.package pkgs.systemd;
  };
  config = {
    systemd.timers = builtins.mapAttrs (name: unit: {
      wantedBy = [ "timers.target" ];
      timerConfig.OnCalendar = unit.startAt;
    }) timed;
    systemd.units =
      unitsOf "service" cfg.services
      // unitsOf "socket" cfg.sockets
      // unitsOf "timer" cfg.timers
      // unitsOf "path" cfg.paths
      // unitsOf "target" cfg.targets;
    system.build.units = units;
    environment.etc."systemd/system".source = units;
  };
}
