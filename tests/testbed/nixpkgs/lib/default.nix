# SPDX-License-Identifier: GPL-3.0-or-later
# The part of nixpkgs' lib that fleets use most.
{ release }:
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    genList
    head
    isAttrs
    isList
    length
    listToAttrs
    map
    mapAttrs
    replaceStrings
    split
    stringLength
    substring
    ;
  nameValuePair = name: value: { inherit name value; };
  last = list: elemAt list (length list - 1);
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  filterAttrs = keep: set: listToAttrs (filter (pair: keep pair.name pair.value) (mapAttrsToList nameValuePair set));
  optional = cond: value: if cond then [ value ] else [ ];
  optionals = cond: list: if cond then list else [ ];
  optionalAttrs = cond: set: if cond then set else { };
  optionalString = cond: text: if cond then text else "";
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    let
      start = stringLength text - stringLength suffix;
    in
    start >= 0 && substring start (-1) text == suffix;
  flatten = value: if isList value then concatMap flatten value else [ value ];
  recursiveUpdate =
    left: right:
    left
    // mapAttrs (
      name: value:
      if isAttrs value && isAttrs (left.${name} or null) then recursiveUpdate left.${name} value else value
    ) right;
  escapeShellArg = value: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString value)}'";

  base = builtins // {
    inherit
      escapeShellArg
      filterAttrs
      flatten
      genAttrs
      hasPrefix
      hasSuffix
      last
      mapAttrsToList
      nameValuePair
      optional
      optionalAttrs
      optionalString
      optionals
      recursiveUpdate
      ;
    id = value: value;
    const = value: _: value;
    attrValues = builtins.attrValues;
    boolToString = value: if value then "true" else "false";
    concatLines = lines: concatStringsSep "" (map (line: line + "\n") lines);
    concatMapAttrsStringsSep =
      sep: f: set:
      concatStringsSep sep (mapAttrsToList f set);
    concatMapStrings = f: list: concatStringsSep "" (map f list);
    concatMapStringsSep =
      sep: f: list:
      concatStringsSep sep (map f list);
    escapeShellArgs = list: concatStringsSep " " (map escapeShellArg list);
    fileContents = path: base.removeSuffix "\n" (builtins.readFile path);
    fold =
      f: start: list:
      foldl' (acc: value: f value acc) start list;
    getExe = package: "${package}/bin/${package.meta.mainProgram or package.pname}";
    importJSON = path: builtins.fromJSON (builtins.readFile path);
    mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
    range = from: to: if from > to then [ ] else genList (n: from + n) (to - from + 1);
    removeSuffix =
      suffix: text:
      if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
    splitString = sep: text: filter builtins.isString (split (replaceStrings [ "." ] [ "\\." ] sep) text);
    toList = value: if isList value then value else [ value ];
    unique = foldl' (acc: value: if elem value acc then acc else acc ++ [ value ]) [ ];
    warn = message: builtins.trace "evaluation warning: ${message}";
    trivial.release = head (base.splitString "-" release.version);
    version = release.version;
  };
  modules = import ./modules.nix { inherit lib; };
  types = import ./types.nix { inherit lib modules; };
  lib =
    base
    // modules
    // {
      inherit types;
      mkEnableOption =
        name:
        modules.mkOption {
          type = types.bool;
          default = false;
          description = "Whether to enable ${name}.";
        };
    };
in
lib
